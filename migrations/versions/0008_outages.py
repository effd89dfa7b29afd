"""Jobs that wait for storage are found by an index, and a checkpoint knows the version of the
training that made it: another one would go on with other numbers.
"""

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
    there = sa.text("waiting_code IS NOT NULL")
    op.create_index(
        "ix_jobs_waiting", "jobs", ["waiting_code"], sqlite_where=there, postgresql_where=there
    )


def downgrade() -> None:
    op.drop_index("ix_jobs_waiting", "jobs")
    with op.batch_alter_table("checkpoints") as checkpoints:
        checkpoints.drop_column("training_version")
