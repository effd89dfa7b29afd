"""Indexes of jobs that wait for storage or continue another job, and the training version of each
checkpoint, since another version would give other numbers.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

INDEXES = {"ix_jobs_waiting": "waiting_code", "ix_jobs_continues": "continues"}


def upgrade() -> None:
    with op.batch_alter_table("checkpoints") as checkpoints:
        checkpoints.add_column(  # there was only version 1 until now
            sa.Column("training_version", sa.Integer(), nullable=False, server_default=sa.text("1"))
        )
    for name, column in INDEXES.items():
        there = sa.text(f"{column} IS NOT NULL")
        op.create_index(name, "jobs", [column], sqlite_where=there, postgresql_where=there)


def downgrade() -> None:
    for name in INDEXES:
        op.drop_index(name, "jobs")
    with op.batch_alter_table("checkpoints") as checkpoints:
        checkpoints.drop_column("training_version")
