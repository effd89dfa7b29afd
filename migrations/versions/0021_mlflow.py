"""What MLflow was sent of jobs and models, and what is to be sent."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
IS_PENDING = sa.text("state = 'pending'")


def upgrade() -> None:
    op.create_table(
        "mlflow_server",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("tracking_uri", sa.Text(), nullable=False),
        sa.Column("experiment", sa.String(length=500), nullable=False),
        sa.Column("experiment_id", sa.String(length=64), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.Double(), nullable=False),
        sa.Column("lease_expires_at", sa.Double(), nullable=True),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("last_success_at", sa.Double(), nullable=True),
        sa.Column("last_error_code", sa.String(length=64), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("last_error_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mlflow_server")),
    )
    op.create_table(
        "mlflow_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=True),
        sa.Column("has_params", sa.Boolean(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("steps", JSON, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.Double(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'sent', 'failed')", name=op.f("ck_mlflow_runs_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mlflow_runs")),
    )
    op.create_index(
        "ix_mlflow_runs_pending",
        "mlflow_runs",
        ["id"],
        sqlite_where=IS_PENDING,
        postgresql_where=IS_PENDING,
    )
    op.create_table(
        "mlflow_models",
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.Column("versions", JSON, nullable=False),
        sa.Column("aliases", JSON, nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.Double(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("model_id", name=op.f("pk_mlflow_models")),
    )
    op.create_table(
        "mlflow_model_changes",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mlflow_model_changes")),
    )
    op.create_index("ix_mlflow_model_changes_model_id", "mlflow_model_changes", ["model_id"])


def downgrade() -> None:
    """What MLflow was sent is forgotten. After another upgrade it is found by its tags."""
    for name in ("mlflow_model_changes", "mlflow_models", "mlflow_runs", "mlflow_server"):
        op.drop_table(name)
