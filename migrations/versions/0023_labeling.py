"""Labeling projects, and jobs that compute the vectors of texts."""

from collections.abc import Callable
from typing import Literal

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# Keys with all of these are full-access keys.
ALL = {
    *("jobs:read", "jobs:write", "datasets:read", "datasets:write", "models:read", "models:admin"),
    *("predict", "predictions:read", "predictions:write", "metrics:read", "webhooks:admin"),
    "keys:admin",
}
NEW = ["labels:read", "labels:write"]
KEYS = sa.table("api_keys", sa.column("id", sa.Uuid()), sa.column("scopes", sa.JSON()))
VALUE = sa.JSON().with_variant(JSONB(), "postgresql")
REASONS = "reason IN ('random', 'spread', 'uncertain', 'diverse', 'requested')"


def upgrade() -> None:
    _set_job_kinds("'training', 'prediction', 'embedding'")
    _change_scopes(lambda scopes: scopes + NEW if set(scopes) >= ALL else scopes)
    op.create_table(
        "labeling_projects",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("task", sa.String(16), nullable=False),
        sa.Column("ordered", sa.Boolean(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("base", sa.String(512), nullable=False),
        sa.Column("base_revision", sa.String(64), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("random_share", sa.Double(), nullable=False),
        sa.Column("overlap", sa.Double(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("chosen", sa.Integer(), nullable=False),
        sa.Column("changes", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["created_by"], ["api_keys.id"], name="fk_labeling_projects_created_by_api_keys"
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name="fk_labeling_projects_dataset_id_datasets"
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.id"], name="fk_labeling_projects_job_id_jobs", ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_labeling_projects"),
        sa.UniqueConstraint("name", name="uq_labeling_projects_name"),
    )
    op.create_index("ix_labeling_projects_dataset_id", "labeling_projects", ["dataset_id"])
    op.create_index("ix_labeling_projects_job_id", "labeling_projects", ["job_id"])
    op.create_table(
        "labeling_choices",
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("text_hash", sa.String(32), nullable=False),
        sa.Column("first_hash", sa.String(32), nullable=True),
        sa.Column("second_hash", sa.String(32), nullable=True),
        sa.Column("missing", sa.Integer(), nullable=False),
        sa.Column("hidden", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.CheckConstraint(REASONS, name=op.f("ck_labeling_choices_reason")),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["labeling_projects.id"],
            name="fk_labeling_choices_project_id_labeling_projects",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", "row", name="pk_labeling_choices"),
        sa.UniqueConstraint(
            "project_id", "position", name="uq_labeling_choices_project_id_position"
        ),
    )
    op.create_index(
        "ix_labeling_choices_open",
        "labeling_choices",
        ["project_id", "position"],
        sqlite_where=sa.text("missing > 0"),
        postgresql_where=sa.text("missing > 0"),
    )
    op.create_table(
        "labeling_leases",
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("annotator", sa.String(160), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        _choice_key("fk_labeling_leases_choice"),
        sa.PrimaryKeyConstraint("project_id", "row", "annotator", name="pk_labeling_leases"),
    )
    op.create_table(
        "labeling_annotations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("annotator", sa.String(160), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("value", VALUE, nullable=True),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("suggested", VALUE, nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.CheckConstraint(REASONS, name=op.f("ck_labeling_annotations_reason")),
        _choice_key("fk_labeling_annotations_choice"),
        sa.ForeignKeyConstraint(
            ["created_by"], ["api_keys.id"], name="fk_labeling_annotations_created_by_api_keys"
        ),
        sa.PrimaryKeyConstraint("id", name="pk_labeling_annotations"),
        sa.UniqueConstraint(
            "project_id",
            "row",
            "annotator",
            name="uq_labeling_annotations_project_id_row_annotator",
        ),
    )
    op.create_index(
        "ix_labeling_annotations_annotator", "labeling_annotations", ["project_id", "annotator"]
    )


def downgrade() -> None:
    """Labeling projects are lost; the next garbage collection deletes the vectors."""
    for table in ("annotations", "leases", "choices", "projects"):
        op.drop_table(f"labeling_{table}")
    jobs = "(SELECT id FROM jobs WHERE kind = 'embedding')"
    for table in ("metric_points", "job_events", "checkpoints", "attempts"):
        op.execute(f"DELETE FROM {table} WHERE job_id IN {jobs}")  # noqa: S608 - our own names
    op.execute("DELETE FROM jobs WHERE kind = 'embedding'")
    op.execute("DELETE FROM artifacts WHERE kind = 'vectors'")
    _change_scopes(lambda scopes: [each for each in scopes if each not in NEW])
    _set_job_kinds("'training', 'prediction'")


def _choice_key(name: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["project_id", "row"],
        ["labeling_choices.project_id", "labeling_choices.row"],
        name=name,
        ondelete="CASCADE",
    )


def _change_scopes(change: Callable[[list[str]], list[str]]) -> None:
    """Full-access keys get the new scopes."""
    connection = op.get_bind()
    for key in connection.execute(sa.select(KEYS)).all():
        if (scopes := change(key.scopes)) != key.scopes:
            connection.execute(KEYS.update().where(KEYS.c.id == key.id).values(scopes=scopes))


def _set_job_kinds(kinds: str) -> None:
    recreate: Literal["always", "never"] = (
        "always" if op.get_bind().dialect.name == "sqlite" else "never"
    )
    op.drop_index("ix_jobs_queue", "jobs")  # a copied table would lose its order
    with op.batch_alter_table("jobs", recreate=recreate) as jobs:
        jobs.drop_constraint(op.f("ck_jobs_kind"), type_="check")
        jobs.create_check_constraint(op.f("ck_jobs_kind"), f"kind IN ({kinds})")
    queued = sa.text("state = 'queued'")
    op.create_index(
        "ix_jobs_queue",
        "jobs",
        [
            sa.text("priority DESC"),
            "created_at",
            "id",
            "device_class",
            "run_after",
            "pause_requested_at",
        ],
        sqlite_where=queued,
        postgresql_where=queued,
    )
