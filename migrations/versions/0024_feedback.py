"""Counts of predictions, kept predictions, feedback, forgotten texts, and the scope of feedback."""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

ALL = {
    *("jobs:read", "jobs:write", "datasets:read", "datasets:write", "models:read", "models:admin"),
    *("predict", "predictions:read", "predictions:write", "metrics:read", "webhooks:admin"),
    *("labels:read", "labels:write", "keys:admin"),
}
NEW = "feedback:write"
KEYS = sa.table("api_keys", sa.column("id", sa.Uuid()), sa.column("scopes", sa.JSON()))


def upgrade() -> None:
    op.create_table(
        "forgotten_texts",
        sa.Column("text_hash", sa.String(32), nullable=False),
        sa.Column("forgotten_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("text_hash", name="pk_forgotten_texts"),
    )
    op.create_table(
        "prediction_counts",
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("start", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("label", sa.String(300), nullable=False),
        sa.Column("count", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.CheckConstraint(
            "outcome IN ('text', 'label', 'abstained')", name=op.f("ck_prediction_counts_outcome")
        ),
        sa.PrimaryKeyConstraint(
            "model", "number", "start", "outcome", "label", name="pk_prediction_counts"
        ),
    )
    op.create_index("ix_prediction_counts_start", "prediction_counts", ["start"])
    op.create_table(
        "kept_predictions",
        sa.Column("prediction_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("texts", sa.Integer(), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("task", sa.String(32), nullable=False),
        sa.Column("target", sa.String(32), nullable=True),
        *_text_columns(),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("scores", sa.JSON(), nullable=False),
        sa.Column("confidence", sa.JSON(), nullable=False),
        sa.Column("abstained", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("sampled_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("prediction_id", "position", name="pk_kept_predictions"),
    )
    op.create_index(
        "ix_kept_predictions_version", "kept_predictions", ["model", "number", "prediction_id"]
    )
    _index_where_set("kept_predictions", "sampled", ["model", "number", "sampled_at"], "sampled_at")
    _index_hashes("kept_predictions")
    op.create_table(
        "feedback",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("target", sa.String(32), nullable=False),
        sa.Column("author", sa.String(129), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("prediction_id", sa.Uuid(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=True),
        sa.Column("sampled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("task", sa.String(32), nullable=False),
        *_text_columns(),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("predicted_at", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_feedback_key_id_api_keys"),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.UniqueConstraint(
            "model", "target", "author", "subject", name="uq_feedback_model_target_author_subject"
        ),
    )
    op.create_index("ix_feedback_list", "feedback", ["model", "id"])
    op.create_index("ix_feedback_prediction_id", "feedback", ["prediction_id"])
    op.create_index("ix_feedback_updated_at", "feedback", ["updated_at"])
    _index_hashes("feedback")
    _change_scopes(lambda scopes: [*scopes, NEW] if set(scopes) >= ALL else scopes)


def downgrade() -> None:
    """Kept predictions, feedback, and which texts were forgotten are lost."""
    for table in ("feedback", "kept_predictions", "prediction_counts", "forgotten_texts"):
        op.drop_table(table)
    _change_scopes(lambda scopes: [each for each in scopes if each != NEW])


def _text_columns() -> list[sa.Column[str]]:
    hashes = [
        sa.Column(name, sa.String(32), nullable=name != "text_hash")
        for name in ("text_hash", "first_hash", "second_hash")
    ]
    texts = [sa.Column(name, sa.Text(), nullable=True) for name in ("text", "text_pair")]
    return [*hashes, *texts]


def _index_hashes(table: str) -> None:
    op.create_index(f"ix_{table}_text_hash", table, ["text_hash"])
    for name in ("first_hash", "second_hash"):
        _index_where_set(table, name, [name], name)


def _index_where_set(table: str, name: str, columns: list[str], column: str) -> None:
    is_set = sa.text(f"{column} IS NOT NULL")
    op.create_index(
        f"ix_{table}_{name}", table, columns, sqlite_where=is_set, postgresql_where=is_set
    )


def _change_scopes(change: Callable[[list[str]], list[str]]) -> None:
    """Full-access keys get the new scope."""
    connection = op.get_bind()
    for key in connection.execute(sa.select(KEYS)).all():
        if (scopes := change(key.scopes)) != key.scopes:
            connection.execute(KEYS.update().where(KEYS.c.id == key.id).values(scopes=scopes))
