"""Tags and notes of jobs, with an index of the jobs that have tags."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Copy the table, so that SQLite writes it like a new one.
    recreate = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    op.drop_index("ix_jobs_queue", "jobs")  # a copied table would lose its order
    with op.batch_alter_table("jobs", recreate=recreate) as jobs:  # type: ignore[arg-type]
        jobs.add_column(sa.Column("tags", sa.JSON(), nullable=True))
        jobs.add_column(sa.Column("notes", sa.Text(), nullable=True))
    _index("ix_jobs_queue", _QUEUE, "state = 'queued'")
    _index("ix_jobs_tagged", ["kind", "id"], "tags IS NOT NULL")


def downgrade() -> None:
    op.drop_index("ix_jobs_tagged", "jobs")
    op.drop_index("ix_jobs_queue", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("notes")
        jobs.drop_column("tags")
    _index("ix_jobs_queue", _QUEUE, "state = 'queued'")


_QUEUE: list[str | sa.TextClause] = [
    sa.text("priority DESC"),
    "created_at",
    "id",
    "lane",
    "run_after",
]


def _index(name: str, columns: list[str | sa.TextClause], where: str) -> None:
    """Create a partial index of jobs."""
    there = sa.text(where)
    op.create_index(name, "jobs", columns, sqlite_where=there, postgresql_where=there)
