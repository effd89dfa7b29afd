"""What multi-label and regression jobs are compared by, text by text."""

from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

_COLUMNS = ("true_labels", "predicted_labels", "errors")


def upgrade() -> None:
    # Copy the table on SQLite, which writes added columns unlike those of a new table.
    recreate: Literal["always", "never"] = (
        "always" if op.get_bind().dialect.name == "sqlite" else "never"
    )
    with op.batch_alter_table("correctness", recreate=recreate) as correctness:
        correctness.alter_column("correct", existing_type=sa.LargeBinary(), nullable=True)
        for name in _COLUMNS:
            correctness.add_column(sa.Column(name, sa.LargeBinary()))


def downgrade() -> None:
    op.execute("DELETE FROM correctness WHERE correct IS NULL")
    with op.batch_alter_table("correctness") as correctness:
        for name in reversed(_COLUMNS):
            correctness.drop_column(name)
        correctness.alter_column("correct", existing_type=sa.LargeBinary(), nullable=False)
