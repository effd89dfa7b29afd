"""A data set has the title that its owner gave it beside its name, and knows the sheet that was asked
for.
"""

from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Made anew on SQLite, which would write added columns in another way than those of a new table.
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
