"""Tables of counted and of kept predictions."""

from enum import StrEnum
from uuid import UUID

from sqlalchemy import JSON, Double, Index, String, Text, false
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, BigInt, enum_check, now
from app.privacy.text_hashes import HASH_LENGTH

MAX_LABEL_LENGTH = 300  # a name of 256 characters, and a target of 32 before it


class PredictionOutcome(StrEnum):
    """What is counted."""

    TEXT = "text"  # a text with a prediction
    LABEL = "label"  # a predicted label; a text may have several, or none
    ABSTAINED = "abstained"  # a text that got no label, because none was probable enough


class PredictionCount(Base):
    """How often a version predicted a label in an hour or, later, in a day."""

    __tablename__ = "prediction_counts"

    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)  # of the version
    start: Mapped[BigInt] = mapped_column(primary_key=True)  # Unix time of the hour or the day
    outcome: Mapped[str] = mapped_column(String(16), primary_key=True)
    # Of an outcome LABEL its name, of several targets TARGET/LABEL; of others the only target that
    # was asked for, empty for all.
    label: Mapped[str] = mapped_column(String(MAX_LABEL_LENGTH), primary_key=True)
    count: Mapped[BigInt]

    __table_args__ = (
        enum_check("outcome", tuple(PredictionOutcome), "outcome"),
        Index("ix_prediction_counts_start", "start"),
    )


class KeptPrediction(Base):
    """A prediction for one text: its hash, what was predicted and, if the settings say so, the
    text.

    Ids are UUIDv7, so they sort by time.
    """

    __tablename__ = "kept_predictions"

    prediction_id: Mapped[UUID] = mapped_column(primary_key=True)  # of the request
    position: Mapped[int] = mapped_column(primary_key=True)  # of the text in the request, from 0
    texts: Mapped[int]  # of the request
    model: Mapped[str] = mapped_column(String(64))
    number: Mapped[int]  # of the version
    task: Mapped[str] = mapped_column(String(32))
    target: Mapped[str | None] = mapped_column(String(32))  # the only one of several predicted
    text_hash: Mapped[str] = mapped_column(String(HASH_LENGTH))  # of a pair: of both texts
    first_hash: Mapped[str | None] = mapped_column(String(HASH_LENGTH))  # of a pair
    second_hash: Mapped[str | None] = mapped_column(String(HASH_LENGTH))
    text: Mapped[str | None] = mapped_column(Text)  # None: only scores are kept
    text_pair: Mapped[str | None] = mapped_column(Text)
    answer: Mapped[str] = mapped_column(Text)  # the predicted label, as in rows of a dataset
    # By output name, the highest of each target
    scores: Mapped[dict[str, float]] = mapped_column(JSON)
    confidence: Mapped[dict[str, float]] = mapped_column(JSON)  # by target, "" if there is one
    abstained: Mapped[bool] = mapped_column(server_default=false())
    sampled_at: Mapped[float | None] = mapped_column(Double)  # when it was drawn for a review
    created_at: Mapped[float] = mapped_column(Double, default=now())

    __table_args__ = (
        Index(
            "ix_kept_predictions_version",
            *("model", "number", "prediction_id"),
            *("position", "abstained", "sampled_at"),  # so that the draw of a review reads no texts
        ),
        Index("ix_kept_predictions_text_hash", "text_hash"),
        Index(
            "ix_kept_predictions_with_text",
            "model",
            "number",
            "prediction_id",
            sqlite_where=sql("text IS NOT NULL"),
            postgresql_where=sql("text IS NOT NULL"),
        ),
        *(
            Index(
                f"ix_kept_predictions_{name}",
                name,
                sqlite_where=sql(f"{name} IS NOT NULL"),
                postgresql_where=sql(f"{name} IS NOT NULL"),
            )
            for name in ("first_hash", "second_hash")
        ),
        Index(
            "ix_kept_predictions_sampled",
            "model",
            "number",
            "sampled_at",
            sqlite_where=sql("sampled_at IS NOT NULL"),
            postgresql_where=sql("sampled_at IS NOT NULL"),
        ),
    )
