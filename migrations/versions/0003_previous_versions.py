"""The previous target of an alias, for rollbacks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("model_aliases") as aliases:
        aliases.add_column(sa.Column("previous_id", sa.Uuid(), nullable=True))
        aliases.create_foreign_key(
            op.f("fk_model_aliases_previous_id_model_versions"),
            "model_versions",
            ["previous_id"],
            ["id"],
            ondelete="SET NULL",
        )


def downgrade() -> None:
    with op.batch_alter_table("model_aliases") as aliases:
        aliases.drop_column("previous_id")
