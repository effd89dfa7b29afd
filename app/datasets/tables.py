"""Uploaded data sets."""

from collections import Counter
from uuid import UUID

from sqlalchemy import Double, ForeignKey, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, validates

from app.database.base import Base, BigInt, JsonObject, new_id
from app.database.clock import now

LABELS_SHOWN = 10  # in lists: the most frequent
_GROWING = ("labels", "similar_labels", "diagnosis")  # with the number of labels


class Dataset(Base):
    """One uploaded file, checked before any job may use it. The file lies under its id.

    Deleting removes the file and keeps the row: a version number never comes back, and a job can
    still say what it was trained on.
    """

    __tablename__ = "datasets"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_by: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    name: Mapped[str] = mapped_column(String(64))
    title: Mapped[str | None] = mapped_column(String(255))  # what the name was made from
    version: Mapped[int]  # counts uploads under one name, from 1
    filename: Mapped[str] = mapped_column(String(255))  # as the caller called it, for show only
    suffix: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[BigInt]
    text_column: Mapped[str] = mapped_column(String(256))
    label_column: Mapped[str | None] = mapped_column(String(256))  # None: to be predicted
    split_column: Mapped[str | None] = mapped_column(Text)  # as asked for
    sheet: Mapped[str | None] = mapped_column(String(256))  # as asked for
    rows: Mapped[int]
    # Labels with counts, split counts, duplicates, diagnosis. It grows with the labels, so it is
    # read where it is needed: lists and jobs go by the overview.
    profile: Mapped[JsonObject] = mapped_column(deferred=True)
    overview: Mapped[JsonObject] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[float] = mapped_column(Double, default=now())
    deleted_at: Mapped[float | None] = mapped_column(Double)

    __table_args__ = (UniqueConstraint("name", "version"),)

    @validates("profile")
    def _keep_overview(self, _: str, profile: JsonObject) -> JsonObject:
        self.overview = overview_of(profile)
        return profile


def overview_of(profile: JsonObject) -> JsonObject:
    """What a list shows of a profile, of a size that no number of labels changes."""
    labels: dict[str, int] = profile.get("labels", {})
    most_frequent = sorted(labels.items(), key=lambda each: -each[1])[:LABELS_SHOWN]
    diagnosis = profile.get("diagnosis")
    found = Counter(each["level"] for each in diagnosis["findings"]) if diagnosis else None
    return {
        **{name: value for name, value in profile.items() if name not in _GROWING},
        "labels": dict(most_frequent),
        "label_count": len(labels),
        "findings": found,
    }
