"""The table of feedback."""

from uuid import UUID

from sqlalchemy import Boolean, Double, ForeignKey, Index, String, Text, UniqueConstraint, false
from sqlalchemy import text as sql
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, new_id, now
from app.privacy.text_hashes import HASH_LENGTH

MAX_AUTHOR_LENGTH = 129  # the name of an API key, a slash, and a name that its client sent


class Feedback(Base):
    """The right label of a text, according to one author. The newest of an author counts.

    What is known of the prediction is copied, because the prediction itself expires earlier.
    """

    __tablename__ = "feedback"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    model: Mapped[str] = mapped_column(String(64))
    number: Mapped[int]  # of the version that predicted, or that the model name stood for
    target: Mapped[str] = mapped_column(String(32))  # empty for a model with one
    author: Mapped[str] = mapped_column(String(MAX_AUTHOR_LENGTH))
    subject: Mapped[str] = mapped_column(String(64))  # the prediction, or the hash of the text
    key_id: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    prediction_id: Mapped[UUID | None]
    position: Mapped[int | None]
    sampled: Mapped[bool] = mapped_column(Boolean, server_default=false())  # drawn for a review
    task: Mapped[str] = mapped_column(String(32))  # of the target
    text_hash: Mapped[str] = mapped_column(String(HASH_LENGTH))
    first_hash: Mapped[str | None] = mapped_column(String(HASH_LENGTH))
    second_hash: Mapped[str | None] = mapped_column(String(HASH_LENGTH))
    text: Mapped[str | None] = mapped_column(Text)  # None: neither kept nor sent
    text_pair: Mapped[str | None] = mapped_column(Text)
    label: Mapped[str] = mapped_column(Text)  # as in rows of a dataset
    answer: Mapped[str | None] = mapped_column(Text)  # the predicted label; None: not kept
    confidence: Mapped[float | None] = mapped_column(Double)  # the model's own, in its answer
    predicted_at: Mapped[float | None] = mapped_column(Double)  # Unix time
    created_at: Mapped[float] = mapped_column(Double, default=now())
    updated_at: Mapped[float] = mapped_column(Double, default=now(), index=True)

    __table_args__ = (
        UniqueConstraint("model", "target", "author", "subject"),
        Index("ix_feedback_list", "model", "id"),
        Index("ix_feedback_prediction_id", "prediction_id"),
        Index("ix_feedback_text_hash", "text_hash"),
        *(
            Index(
                f"ix_feedback_{name}",
                name,
                sqlite_where=sql(f"{name} IS NOT NULL"),
                postgresql_where=sql(f"{name} IS NOT NULL"),
            )
            for name in ("first_hash", "second_hash")
        ),
    )
