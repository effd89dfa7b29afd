"""Sweeps, their trials, and which texts a job predicted correctly."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_jobs_queue", "jobs")  # a copied table would lose its order
    with op.batch_alter_table("jobs", recreate="always" if _is_sqlite() else "never") as jobs:
        jobs.add_column(sa.Column("cell_sha256", sa.String(length=64), nullable=True))
        jobs.add_column(sa.Column("sweep_id", sa.Uuid(), nullable=True))
        jobs.add_column(sa.Column("continues", sa.Uuid(), nullable=True))
        jobs.add_column(sa.Column("promote_to", sa.String(length=64), nullable=True))
    _index_queue()
    op.create_index("ix_jobs_cell_sha256", "jobs", ["cell_sha256"])
    op.create_index("ix_jobs_sweep_id", "jobs", ["sweep_id"])
    op.create_table(
        "grades",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("split", sa.String(length=16), nullable=False),
        sa.Column("texts_sha256", sa.String(length=64), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("correct", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_grades_job_id_jobs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "split", name=op.f("pk_grades")),
    )
    op.create_table(
        "sweeps",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("metadata", JSON, nullable=False),
        sa.Column("job", JSON, nullable=False),
        sa.Column("space", sa.JSON(), nullable=False),
        sa.Column("strategy", JSON, nullable=False),
        sa.Column("pinned", JSON, nullable=False),
        sa.Column("objective", sa.String(length=32), nullable=False),
        sa.Column("parallel", sa.Integer(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "state IN ('running', 'paused', 'stopped', 'finished')", name=op.f("ck_sweeps_state")
        ),
        sa.ForeignKeyConstraint(
            ["created_by"], ["api_keys.id"], name=op.f("fk_sweeps_created_by_api_keys")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweeps")),
    )
    op.create_table(
        "sweep_cells",
        sa.Column("sweep_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("rung", sa.Integer(), nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("draft", JSON, nullable=False),
        sa.Column("cell_sha256", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("reused", sa.Boolean(), nullable=False),
        sa.Column("lost", sa.Integer(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name=op.f("fk_sweep_cells_job_id_jobs"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["sweep_id"],
            ["sweeps.id"],
            name=op.f("fk_sweep_cells_sweep_id_sweeps"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sweep_id", "number", "rung", name=op.f("pk_sweep_cells")),
    )
    op.create_index("ix_sweep_cells_job_id", "sweep_cells", ["job_id"])


def downgrade() -> None:
    """Sweeps are lost; the jobs of their trials stay."""
    op.drop_table("sweep_cells")
    op.drop_table("sweeps")
    op.drop_table("grades")
    op.drop_index("ix_jobs_sweep_id", "jobs")
    op.drop_index("ix_jobs_cell_sha256", "jobs")
    op.drop_index("ix_jobs_queue", "jobs")
    with op.batch_alter_table("jobs") as jobs:
        for column in ("promote_to", "continues", "sweep_id", "cell_sha256"):
            jobs.drop_column(column)
    _index_queue()


def _is_sqlite() -> bool:
    """SQLite writes columns added by ALTER TABLE differently, so the table is copied."""
    return op.get_bind().dialect.name == "sqlite"


def _index_queue() -> None:
    op.create_index(
        "ix_jobs_queue",
        "jobs",
        ["lane", sa.text("priority DESC"), "run_after", "id"],
        sqlite_where=sa.text("state = 'queued'"),
        postgresql_where=sa.text("state = 'queued'"),
    )
