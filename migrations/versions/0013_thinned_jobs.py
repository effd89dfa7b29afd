"""When the curves of an ended job were thinned, with an index of the jobs where they were not yet."""

from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Copy the table, so that SQLite writes it like a new one.
    recreate: Literal["always", "never"] = (
        "always" if op.get_bind().dialect.name == "sqlite" else "never"
    )
    op.drop_index("ix_jobs_queue", "jobs")  # a copied table would lose its order
    with op.batch_alter_table("jobs", recreate=recreate) as jobs:
        jobs.add_column(sa.Column("thinned_at", sa.Double(), nullable=True))
    _index("ix_jobs_queue", _QUEUE, "state = 'queued'")
    _index("ix_jobs_unthinned", ["id"], "finished_at IS NOT NULL AND thinned_at IS NULL")


def downgrade() -> None:
    op.drop_index("ix_jobs_unthinned", "jobs")
    op.drop_index("ix_jobs_queue", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("thinned_at")
    _index("ix_jobs_queue", _QUEUE, "state = 'queued'")


_QUEUE: list[str | sa.TextClause] = [
    sa.text("priority DESC"),
    "created_at",
    "id",
    "device_class",
    "run_after",
]


def _index(name: str, columns: list[str | sa.TextClause], where: str) -> None:
    """Create a partial index of jobs."""
    there = sa.text(where)
    op.create_index(name, "jobs", columns, sqlite_where=there, postgresql_where=there)
