"""Tables of drift checks, and of who makes the next one."""

from uuid import UUID

from sqlalchemy import Boolean, Double, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, new_id, now


class DriftCheck(Base):
    """A comparison of the texts that a version predicted in some time with its training texts.

    It has the ids of predictions, not their texts: those expire and are forgotten where they are
    kept. The times of two checks of a version never overlap, so that each text counts in one.
    """

    __tablename__ = "drift_checks"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    model: Mapped[str] = mapped_column(String(64))
    number: Mapped[int]  # of the version
    window_start: Mapped[float] = mapped_column(Double)  # Unix time; 0: everything kept before
    window_end: Mapped[float] = mapped_column(Double)
    training_texts: Mapped[int]  # that were compared, as `recent_texts`
    recent_texts: Mapped[int]
    p_value: Mapped[float] = mapped_column(Double)
    auc: Mapped[float] = mapped_column(Double)
    level: Mapped[float] = mapped_column(Double)  # of this test
    alarm: Mapped[bool] = mapped_column(Boolean)
    automatic: Mapped[bool] = mapped_column(Boolean)  # False: on request
    most_different: Mapped[list[str]]  # ids of predictions, the most different first
    created_at: Mapped[float] = mapped_column(Double, default=now())

    __table_args__ = (
        UniqueConstraint("model", "number", "window_start"),
        Index("ix_drift_checks_model", "model", "id"),
    )

    @property
    def version_ref(self) -> str:
        """The version that was checked, such as `sentiment:3`."""
        return f"{self.model}:{self.number}"


class DriftClaim(Base):
    """Until when workers leave a version alone: one of them checks it, or could not check it."""

    __tablename__ = "drift_claims"

    model: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int]
    until: Mapped[float] = mapped_column(Double)  # Unix time
    error_code: Mapped[str | None] = mapped_column(String(64))  # of the check that failed
    error_message: Mapped[str | None] = mapped_column(Text)
