"""Uploaded data sets."""

from uuid import UUID

from sqlalchemy import Double, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, BigInt, JsonObject, new_id
from app.db.clock import now


class Dataset(Base):
    """One uploaded file, checked before any job may use it. The file lies under its id.

    Deleting removes the file and keeps the row: a version number never comes back, and a job can
    still say what it was trained on.
    """

    __tablename__ = "datasets"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_by: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[int]  # counts uploads under one name, from 1
    filename: Mapped[str] = mapped_column(String(255))  # as the caller called it, for show only
    suffix: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[BigInt]
    text_column: Mapped[str] = mapped_column(String(256))
    label_column: Mapped[str | None] = mapped_column(String(256))  # None: to be predicted
    split_column: Mapped[str | None] = mapped_column(Text)  # as asked for
    rows: Mapped[int]
    profile: Mapped[JsonObject]  # labels with counts, split counts, duplicates
    created_at: Mapped[float] = mapped_column(Double, default=now())
    deleted_at: Mapped[float | None] = mapped_column(Double)

    __table_args__ = (UniqueConstraint("name", "version"),)
