"""Which version of the training made a checkpoint: another one would go on with other numbers."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("checkpoints") as checkpoints:
        checkpoints.add_column(  # 1 is the only one that there was until now
            sa.Column("training_version", sa.Integer(), nullable=False, server_default=sa.text("1"))
        )


def downgrade() -> None:
    with op.batch_alter_table("checkpoints") as checkpoints:
        checkpoints.drop_column("training_version")
