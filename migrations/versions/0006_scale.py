"""Indexes and small columns with which no transaction reads all jobs, models or data sets."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

QUEUED = sa.text("state = 'queued'")
MADE = sa.text("artifact_id IS NOT NULL")


def upgrade() -> None:
    op.drop_index("ix_jobs_queue", "jobs")
    _index_queue(["created_at", "id", "lane", "run_after"])
    op.create_index("ix_jobs_list", "jobs", ["kind", "id", "state", "method", "sweep_id"])
    op.create_index("ix_jobs_state", "jobs", ["state", "created_by"])
    op.create_index("ix_jobs_finished", "jobs", ["kind", "state", "lane", "finished_at"])
    op.create_index(
        "ix_jobs_artifact_id", "jobs", ["artifact_id"], sqlite_where=MADE, postgresql_where=MADE
    )
    op.create_index("ix_artifacts_job_id", "artifacts", ["job_id"])
    op.create_index("ix_model_versions_artifact_id", "model_versions", ["artifact_id"])
    op.create_index("ix_model_versions_job_id", "model_versions", ["job_id"])
    op.create_index("ix_sweeps_state", "sweeps", ["state", "id"])


def downgrade() -> None:
    op.drop_index("ix_sweeps_state", "sweeps")
    op.drop_index("ix_model_versions_job_id", "model_versions")
    op.drop_index("ix_model_versions_artifact_id", "model_versions")
    op.drop_index("ix_artifacts_job_id", "artifacts")
    op.drop_index("ix_jobs_artifact_id", "jobs")
    op.drop_index("ix_jobs_finished", "jobs")
    op.drop_index("ix_jobs_state", "jobs")
    op.drop_index("ix_jobs_list", "jobs")
    op.drop_index("ix_jobs_queue", "jobs")
    op.create_index(
        "ix_jobs_queue",
        "jobs",
        ["lane", sa.text("priority DESC"), "run_after", "id"],
        sqlite_where=QUEUED,
        postgresql_where=QUEUED,
    )


def _index_queue(columns: list[str]) -> None:
    op.create_index(
        "ix_jobs_queue",
        "jobs",
        [sa.text("priority DESC"), *columns],
        sqlite_where=QUEUED,
        postgresql_where=QUEUED,
    )
