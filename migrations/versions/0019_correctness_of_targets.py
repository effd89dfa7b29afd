"""What jobs with several targets are compared by, text by text."""

from typing import Literal

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    # Copy the table on SQLite, which writes added columns unlike those of a new table.
    recreate: Literal["always", "never"] = (
        "always" if op.get_bind().dialect.name == "sqlite" else "never"
    )
    with op.batch_alter_table("correctness", recreate=recreate) as correctness:
        correctness.add_column(sa.Column("targets", JSON))


def downgrade() -> None:
    op.execute("DELETE FROM correctness WHERE correct IS NULL AND errors IS NULL")
    with op.batch_alter_table("correctness") as correctness:
        correctness.drop_column("targets")
