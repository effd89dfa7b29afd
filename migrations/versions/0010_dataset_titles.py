"""The title of a dataset in addition to its name, and the requested sheet."""

from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Copy the tables on SQLite, which writes added columns unlike those of a new table.
    recreate: Literal["always", "never"] = (
        "always" if op.get_bind().dialect.name == "sqlite" else "never"
    )
    with op.batch_alter_table("datasets", recreate=recreate) as datasets:
        datasets.add_column(sa.Column("title", sa.String(length=255)))
        datasets.add_column(sa.Column("sheet", sa.String(length=256)))


def downgrade() -> None:
    with op.batch_alter_table("datasets") as datasets:
        datasets.drop_column("sheet")
        datasets.drop_column("title")
