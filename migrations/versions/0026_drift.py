"""Drift checks, and who makes the next one."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "drift_checks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("window_start", sa.Double(), nullable=False),
        sa.Column("window_end", sa.Double(), nullable=False),
        sa.Column("training_texts", sa.Integer(), nullable=False),
        sa.Column("recent_texts", sa.Integer(), nullable=False),
        sa.Column("p_value", sa.Double(), nullable=False),
        sa.Column("auc", sa.Double(), nullable=False),
        sa.Column("level", sa.Double(), nullable=False),
        sa.Column("alarm", sa.Boolean(), nullable=False),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("most_different", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_drift_checks")),
        sa.UniqueConstraint(
            "model",
            "number",
            "window_start",
            name=op.f("uq_drift_checks_model_number_window_start"),
        ),
    )
    op.create_index("ix_drift_checks_model", "drift_checks", ["model", "id"])
    op.create_table(
        "drift_claims",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_drift_claims")),
    )
    with_text = sa.text("text IS NOT NULL")
    op.create_index(
        "ix_kept_predictions_with_text",
        "kept_predictions",
        ["model", "number", "prediction_id"],
        sqlite_where=with_text,
        postgresql_where=with_text,
    )


def downgrade() -> None:
    op.drop_index("ix_kept_predictions_with_text", table_name="kept_predictions")
    op.drop_table("drift_claims")
    op.drop_table("drift_checks")
