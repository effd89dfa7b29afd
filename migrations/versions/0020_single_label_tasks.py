"""Stored tasks get the name of today; jobs lose a hash that nothing reads.

Going back, all of them get the former name, which readers accept for longer than this migration.
"""

import hashlib
import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
TASKS = (  # table, column, and the path of the task's type in it
    ("jobs", "spec", ("task", "type")),
    ("sweeps", "job", ("task", "type")),
    ("trials", "job_columns", ("spec", "task", "type")),
    ("idempotency_keys", "response_body", ("spec", "task", "type")),  # a job
    ("idempotency_keys", "response_body", ("job", "task", "type")),  # a sweep
)


def upgrade() -> None:
    _rename("sequence_classification", "single_label")
    op.drop_column("jobs", "spec_sha256")  # not by a copy, which would lose the order of indexes


def _rename(old: str, new: str) -> None:
    """Rename a task in all stored JSON."""
    on_sqlite = op.get_bind().dialect.name == "sqlite"
    for name, column, path in TASKS:
        table = sa.table(name, sa.column(column, JSON))
        json_column = table.c[column]
        renamed: sa.ColumnElement[object] = (
            sa.func.json_set(json_column, f"$.{'.'.join(path)}", new)
            if on_sqlite
            else sa.func.jsonb_set(
                json_column,
                sa.cast(list(path), ARRAY(sa.Text())),
                sa.func.to_jsonb(sa.cast(new, sa.Text())),
            )
        )
        is_old = json_column[path].as_string() == old
        op.execute(table.update().where(is_old).values({column: renamed}))


def downgrade() -> None:
    _rename("single_label", "sequence_classification")
    op.add_column(
        "jobs", sa.Column("spec_sha256", sa.String(64), nullable=False, server_default="")
    )
    jobs = sa.table("jobs", *map(sa.column, ("id", "spec_sha256")), sa.column("spec", JSON))
    bind = op.get_bind()
    for job_id, spec in bind.execute(sa.select(jobs.c.id, jobs.c.spec)).all():
        text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        bind.execute(jobs.update().where(jobs.c.id == job_id).values(spec_sha256=sha256))
