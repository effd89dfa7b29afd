"""Indexes and small columns, so that no transaction reads all jobs, models or datasets."""

from collections import Counter
from collections.abc import Sequence
from typing import Literal

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

GROWING = ("labels", "similar_labels", "diagnosis")
PRIORITY = sa.text("priority DESC")
QUEUED = sa.text("state = 'queued'")
SUCCEEDED = sa.text("state = 'succeeded'")
MADE = sa.text("artifact_id IS NOT NULL")


def upgrade() -> None:
    op.drop_index("ix_jobs_queue", "jobs")
    _index("ix_jobs_queue", [PRIORITY, "created_at", "id", "lane", "run_after"], QUEUED)
    op.create_index("ix_jobs_list", "jobs", ["kind", "id", "state", "method", "sweep_id"])
    op.create_index("ix_jobs_counts", "jobs", ["kind", "state", "sweep_id", "method"])
    op.create_index("ix_jobs_created_by", "jobs", ["created_by", "state"])
    _index("ix_jobs_succeeded", ["kind", "lane", "finished_at"], SUCCEEDED)
    _index("ix_jobs_artifact_id", ["artifact_id"], MADE)
    op.create_index("ix_attempts_outcome", "attempts", ["outcome"])
    op.create_index("ix_artifacts_job_id", "artifacts", ["job_id"])
    op.create_index("ix_model_versions_artifact_id", "model_versions", ["artifact_id"])
    op.create_index("ix_model_versions_job_id", "model_versions", ["job_id"])
    op.create_index("ix_model_aliases_version_id", "model_aliases", ["version_id"])
    op.create_index("ix_model_aliases_previous_id", "model_aliases", ["previous_id"])
    with op.batch_alter_table("sweeps", recreate=_recreate()) as sweeps:
        sweeps.add_column(
            sa.Column("ready", sa.Boolean(), server_default=sa.true(), nullable=False)
        )
    op.create_index("ix_sweeps_state", "sweeps", ["state", "id"])
    with op.batch_alter_table("datasets", recreate=_recreate()) as datasets:
        datasets.add_column(
            sa.Column("overview", JSON, server_default=sa.text("'{}'"), nullable=False)
        )
    _fill_overviews()


def downgrade() -> None:
    with op.batch_alter_table("datasets") as datasets:
        datasets.drop_column("overview")
    op.drop_index("ix_sweeps_state", "sweeps")
    with op.batch_alter_table("sweeps") as sweeps:
        sweeps.drop_column("ready")
    op.drop_index("ix_model_aliases_previous_id", "model_aliases")
    op.drop_index("ix_model_aliases_version_id", "model_aliases")
    op.drop_index("ix_model_versions_job_id", "model_versions")
    op.drop_index("ix_model_versions_artifact_id", "model_versions")
    op.drop_index("ix_artifacts_job_id", "artifacts")
    op.drop_index("ix_attempts_outcome", "attempts")
    op.drop_index("ix_jobs_artifact_id", "jobs")
    op.drop_index("ix_jobs_succeeded", "jobs")
    op.drop_index("ix_jobs_created_by", "jobs")
    op.drop_index("ix_jobs_counts", "jobs")
    op.drop_index("ix_jobs_list", "jobs")
    op.drop_index("ix_jobs_queue", "jobs")
    _index("ix_jobs_queue", ["lane", PRIORITY, "run_after", "id"], QUEUED)


def _fill_overviews() -> None:
    """The parts of a profile that do not grow with the number of labels, and the top labels."""
    datasets = sa.table(
        "datasets",
        sa.column("id", sa.Uuid()),
        sa.column("profile", JSON),
        sa.column("overview", JSON),
    )
    bind = op.get_bind()
    for (dataset_id,) in bind.execute(sa.select(datasets.c.id)).all():
        mine = datasets.c.id == dataset_id
        profile = bind.execute(sa.select(datasets.c.profile).where(mine)).scalar_one()
        labels = profile.get("labels", {})
        diagnosis = profile.get("diagnosis")
        overview = {
            **{name: value for name, value in profile.items() if name not in GROWING},
            "labels": dict(sorted(labels.items(), key=lambda each: -each[1])[:10]),
            "label_count": len(labels),
            "findings": Counter(each["level"] for each in diagnosis["findings"])
            if diagnosis
            else None,
        }
        bind.execute(sa.update(datasets).where(mine).values(overview=overview))


def _recreate() -> Literal["always", "never"]:
    """SQLite writes columns added by ALTER TABLE differently, so the table is copied."""
    return "always" if op.get_bind().dialect.name == "sqlite" else "never"


def _index(name: str, columns: Sequence[str | sa.TextClause], where: sa.TextClause) -> None:
    """Create a partial index of jobs."""
    op.create_index(name, "jobs", columns, sqlite_where=where, postgresql_where=where)
