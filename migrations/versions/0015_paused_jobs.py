"""When a pause of a job was requested. After a downgrade, paused jobs are queued like all others."""

from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

COLUMN = "pause_requested_at"


def upgrade() -> None:
    # Copy the table, so that SQLite writes it like a new one.
    recreate: Literal["always", "never"] = (
        "always" if op.get_bind().dialect.name == "sqlite" else "never"
    )
    op.drop_index("ix_jobs_queue", "jobs")  # a copied table would lose its order
    with op.batch_alter_table("jobs", recreate=recreate) as jobs:
        jobs.add_column(sa.Column(COLUMN, sa.Double(), nullable=True))
    _create_queue_index(*_QUEUE, COLUMN)


def downgrade() -> None:
    op.drop_index("ix_jobs_queue", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column(COLUMN)
    _create_queue_index(*_QUEUE)


_QUEUE: list[str | sa.TextClause] = [
    sa.text("priority DESC"),
    "created_at",
    "id",
    "device_class",
    "run_after",
]


def _create_queue_index(*columns: str | sa.TextClause) -> None:
    queued = sa.text("state = 'queued'")
    op.create_index(
        "ix_jobs_queue", "jobs", list(columns), sqlite_where=queued, postgresql_where=queued
    )
