"""The column with the second text of each row, for datasets of text pairs."""

from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Copy the table on SQLite, which writes added columns unlike those of a new table.
    recreate: Literal["always", "never"] = (
        "always" if op.get_bind().dialect.name == "sqlite" else "never"
    )
    with op.batch_alter_table("datasets", recreate=recreate) as datasets:
        datasets.add_column(sa.Column("text_pair_column", sa.String(length=256)))


def downgrade() -> None:
    with op.batch_alter_table("datasets") as datasets:
        datasets.drop_column("text_pair_column")
