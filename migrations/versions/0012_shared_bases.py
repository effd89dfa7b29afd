"""Models refer to a base that is stored once for all of them.

Models that were stored before keep a merged checkpoint of their own, and refer to none. A downgrade
keeps the references in a table of its own, for the next upgrade: without them, the models could
never be loaded again. Earlier versions cannot load these models, but delete none of their files.
"""

from typing import Literal

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

IS_BASE = sa.text("kind = 'base'")
KEPT = "kept_artifact_bases"  # exists only between a downgrade and an upgrade


def upgrade() -> None:
    # Copy the table on SQLite, which writes added columns unlike those of a new table.
    recreate: Literal["always", "never"] = (
        "always" if op.get_bind().dialect.name == "sqlite" else "never"
    )
    with op.batch_alter_table("artifacts", recreate=recreate) as artifacts:
        artifacts.add_column(sa.Column("base_id", sa.Uuid(), nullable=True))
        artifacts.create_foreign_key(
            op.f("fk_artifacts_base_id_artifacts"), "artifacts", ["base_id"], ["id"]
        )
    op.create_index(op.f("ix_artifacts_base_id"), "artifacts", ["base_id"])
    op.create_index(
        op.f("ix_artifacts_base_digest"),
        "artifacts",
        ["manifest_sha256"],
        unique=True,
        sqlite_where=IS_BASE,
        postgresql_where=IS_BASE,
    )
    if sa.inspect(op.get_bind()).has_table(KEPT):
        artifacts_table, kept = _references("artifacts"), _references(KEPT)
        base_id = sa.select(kept.c.base_id).where(kept.c.id == artifacts_table.c.id)
        op.execute(
            sa.update(artifacts_table)
            .where(base_id.exists())
            .values(base_id=base_id.scalar_subquery())
        )
        op.drop_table(KEPT)


def downgrade() -> None:
    artifacts = _references("artifacts")
    referring = sa.select(artifacts).where(artifacts.c.base_id.is_not(None))
    if op.get_bind().execute(referring.limit(1)).first() is not None:
        op.create_table(KEPT, sa.Column("id", sa.Uuid()), sa.Column("base_id", sa.Uuid()))
        op.execute(sa.insert(_references(KEPT)).from_select(["id", "base_id"], referring))
    op.drop_index(op.f("ix_artifacts_base_digest"), "artifacts")
    op.drop_index(op.f("ix_artifacts_base_id"), "artifacts")
    with op.batch_alter_table("artifacts") as table:
        table.drop_constraint(op.f("fk_artifacts_base_id_artifacts"), type_="foreignkey")
        table.drop_column("base_id")


def _references(table: str) -> sa.TableClause:
    return sa.table(table, sa.column("id", sa.Uuid()), sa.column("base_id", sa.Uuid()))
