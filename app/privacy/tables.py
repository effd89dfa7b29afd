"""The table of texts that must be forgotten."""

from sqlalchemy import Double, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, now
from app.privacy.text_hashes import HASH_LENGTH


class ForgottenTextHash(Base):
    """A text, or a pair of texts, that is not kept again. Only its hash is known.

    Rows are never deleted: that would undo a promise.
    """

    __tablename__ = "forgotten_texts"

    text_hash: Mapped[str] = mapped_column(String(HASH_LENGTH), primary_key=True)
    forgotten_at: Mapped[float] = mapped_column(Double, default=now())
