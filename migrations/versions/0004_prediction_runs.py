"""Prediction runs, and datasets without labels."""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ALL = {
    *("jobs:read", "jobs:write", "datasets:read", "datasets:write", "models:read", "models:admin"),
    *("predict", "metrics:read", "keys:admin"),
}
NEW = ["predictions:read", "predictions:write"]
KEYS = sa.table("api_keys", sa.column("id", sa.Uuid()), sa.column("scopes", sa.JSON()))


def upgrade() -> None:
    op.drop_index("ix_jobs_queue", "jobs")  # a copied table would lose its order
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(
            sa.Column(
                "kind", sa.String(length=16), server_default=sa.text("'training'"), nullable=False
            )
        )
        jobs.create_check_constraint(op.f("ck_jobs_kind"), "kind IN ('training', 'prediction')")
    _index_queue()
    with op.batch_alter_table("datasets") as datasets:
        datasets.alter_column("label_column", existing_type=sa.String(length=256), nullable=True)
    _change_scopes(lambda scopes: scopes + NEW if set(scopes) >= ALL else scopes)


def downgrade() -> None:
    """Prediction runs are lost; the next garbage collection deletes their files."""
    runs = "(SELECT id FROM jobs WHERE kind = 'prediction')"
    for table in ("metric_points", "job_events", "checkpoints", "attempts"):
        op.execute(f"DELETE FROM {table} WHERE job_id IN {runs}")  # noqa: S608 - our own names
    op.execute("DELETE FROM jobs WHERE kind = 'prediction'")
    op.execute("DELETE FROM artifacts WHERE kind = 'results'")
    _change_scopes(lambda scopes: [each for each in scopes if each not in NEW])
    op.execute("UPDATE datasets SET label_column = '' WHERE label_column IS NULL")
    with op.batch_alter_table("datasets") as datasets:
        datasets.alter_column("label_column", existing_type=sa.String(length=256), nullable=False)
    op.drop_index("ix_jobs_queue", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_constraint(op.f("ck_jobs_kind"), type_="check")
        jobs.drop_column("kind")
    _index_queue()


def _change_scopes(change: Callable[[list[str]], list[str]]) -> None:
    """Full-access keys get the new scopes."""
    connection = op.get_bind()
    for key in connection.execute(sa.select(KEYS)).all():
        if (scopes := change(key.scopes)) != key.scopes:
            connection.execute(KEYS.update().where(KEYS.c.id == key.id).values(scopes=scopes))


def _index_queue() -> None:
    op.create_index(
        "ix_jobs_queue",
        "jobs",
        ["lane", sa.text("priority DESC"), "run_after", "id"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
