"""An index with all that the draw of a review reads, so that it reads no texts."""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

INDEX, TABLE = "ix_kept_predictions_version", "kept_predictions"
COLUMNS = ["model", "number", "prediction_id"]
READ_BY_DRAWS = ["position", "abstained", "sampled_at"]


def upgrade() -> None:
    op.drop_index(INDEX, TABLE)
    op.create_index(INDEX, TABLE, [*COLUMNS, *READ_BY_DRAWS])


def downgrade() -> None:
    op.drop_index(INDEX, TABLE)
    op.create_index(INDEX, TABLE, COLUMNS)
