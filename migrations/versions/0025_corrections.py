"""Suspect labels of datasets, labels that were kept, and corrected versions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "dataset_suspects",
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("target", sa.String(length=256), nullable=False),
        sa.Column("report", JSON, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_suspects_dataset_id_datasets")
        ),
        sa.PrimaryKeyConstraint("dataset_id", "target", name=op.f("pk_dataset_suspects")),
    )
    op.create_table(
        "kept_labels",
        sa.Column("dataset_name", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["created_by"], ["api_keys.id"], name=op.f("fk_kept_labels_created_by_api_keys")
        ),
        sa.PrimaryKeyConstraint("dataset_name", "digest", name=op.f("pk_kept_labels")),
    )
    op.create_table(
        "dataset_corrections",
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("corrected_from", sa.Uuid(), nullable=False),
        sa.Column("created_by", sa.Uuid(), nullable=False),
        sa.Column("changes", JSON, nullable=False),
        sa.Column("kept", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_corrections_dataset_id_datasets")
        ),
        sa.ForeignKeyConstraint(
            ["corrected_from"],
            ["datasets.id"],
            name=op.f("fk_dataset_corrections_corrected_from_datasets"),
        ),
        sa.ForeignKeyConstraint(
            ["created_by"], ["api_keys.id"], name=op.f("fk_dataset_corrections_created_by_api_keys")
        ),
        sa.PrimaryKeyConstraint("dataset_id", name=op.f("pk_dataset_corrections")),
    )


def downgrade() -> None:
    """Corrected versions stay; where they come from and what was kept is forgotten."""
    for name in ("dataset_corrections", "kept_labels", "dataset_suspects"):
        op.drop_table(name)
