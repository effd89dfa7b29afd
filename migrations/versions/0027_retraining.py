"""Rules that retrain models, and their runs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
STATES = (
    "'collecting', 'searching', 'training', 'evaluating', 'promoted', 'shadowed', 'skipped', "
    "'failed', 'cancelled'"
)
ACTIVE = "state IN ('collecting', 'searching', 'training', 'evaluating')"
EVALUATED = "evaluation_dataset_id IS NOT NULL"


def upgrade() -> None:
    op.create_table(
        "retraining_rules",
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("new_labels", sa.Integer(), nullable=True),
        sa.Column("every_days", sa.Double(), nullable=True),
        sa.Column("level", sa.Double(), nullable=False),
        sa.Column("search", JSON, nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["registered_models.id"],
            name=op.f("fk_retraining_rules_model_id_registered_models"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["created_by"], ["api_keys.id"], name=op.f("fk_retraining_rules_created_by_api_keys")
        ),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_retraining_rules")),
    )
    op.create_table(
        "retraining_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("trigger", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("level", sa.Double(), nullable=False),
        sa.Column("search", JSON, nullable=True),
        sa.Column("new_labels", sa.Integer(), nullable=False),
        sa.Column("labels_until", sa.Double(), nullable=False),
        sa.Column("current_number", sa.Integer(), nullable=False),
        sa.Column("new_number", sa.Integer(), nullable=True),
        sa.Column("dataset_id", sa.Uuid(), nullable=True),
        sa.Column("kept_rows", sa.Integer(), nullable=True),
        sa.Column("evaluation_dataset_id", sa.Uuid(), nullable=True),
        sa.Column("sweep_id", sa.Uuid(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("current_run_id", sa.Uuid(), nullable=True),
        sa.Column("new_run_id", sa.Uuid(), nullable=True),
        sa.Column("data", JSON, nullable=True),
        sa.Column("result", JSON, nullable=True),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("claims", sa.Integer(), nullable=False),
        sa.Column("excused", sa.Integer(), nullable=False),
        sa.Column("claimed_until", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.CheckConstraint(f"state IN ({STATES})", name=op.f("ck_retraining_runs_state")),
        sa.CheckConstraint(
            "trigger IN ('new_labels', 'time', 'request')",
            name=op.f("ck_retraining_runs_trigger"),
        ),
        sa.ForeignKeyConstraint(
            ["model_id"],
            ["registered_models.id"],
            name=op.f("fk_retraining_runs_model_id_registered_models"),
        ),
        sa.ForeignKeyConstraint(
            ["created_by"], ["api_keys.id"], name=op.f("fk_retraining_runs_created_by_api_keys")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retraining_runs")),
    )
    op.create_index("ix_retraining_runs_list", "retraining_runs", ["model_id", "id"])
    op.create_index(op.f("ix_retraining_runs_dataset_id"), "retraining_runs", ["dataset_id"])
    op.create_index(
        "uq_retraining_runs_active",
        "retraining_runs",
        ["model_id"],
        unique=True,
        sqlite_where=sa.text(ACTIVE),
        postgresql_where=sa.text(ACTIVE),
    )
    op.create_index(
        "ix_retraining_runs_evaluation",
        "retraining_runs",
        ["evaluation_dataset_id"],
        sqlite_where=sa.text(EVALUATED),
        postgresql_where=sa.text(EVALUATED),
    )


def downgrade() -> None:
    """Versions, jobs and datasets stay; what retrained them is forgotten."""
    op.drop_table("retraining_runs")
    op.drop_table("retraining_rules")
