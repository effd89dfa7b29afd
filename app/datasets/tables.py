"""Table of uploaded datasets."""

from collections import Counter
from uuid import UUID

from sqlalchemy import Double, ForeignKey, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, validates

from app.database.base import Base, BigInt, JsonObject, new_id, now
from app.datasets.schemas import MAX_LISTED_LABELS
from lora_core.data.label_readers import SINGLE_LABEL, LabelFormat, list_target_columns
from lora_core.specs.task import SeveralTargetsSpec

_UNBOUNDED_KEYS = (
    "labels",
    "similar_labels",
    "diagnosis",
)  # profile keys that grow with the labels


class Dataset(Base):
    """An uploaded file, validated before any job may use it. The file is stored under its id.

    Deletion removes the file and keeps the row: version numbers are never reused, and a job can
    still refer to its training data.
    """

    __tablename__ = "datasets"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_by: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    name: Mapped[str] = mapped_column(String(64))
    title: Mapped[str | None] = mapped_column(String(255))  # the name was derived from it
    version: Mapped[int]  # counts the uploads of a name, from 1
    filename: Mapped[str] = mapped_column(String(255))  # as the client sent it, for display only
    suffix: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[BigInt]
    text_column: Mapped[str] = mapped_column(String(256))
    text_pair_column: Mapped[str | None] = mapped_column(String(256))  # None: rows are no pairs
    label_column: Mapped[str | None] = mapped_column(String(256))  # None: only for prediction
    split_column: Mapped[str | None] = mapped_column(Text)  # as requested
    sheet: Mapped[str | None] = mapped_column(String(256))  # as requested
    rows: Mapped[int]
    # Labels with counts, split counts, duplicates, diagnosis. It grows with the number of labels,
    # so it is deferred: lists and jobs use the overview.
    profile: Mapped[JsonObject] = mapped_column(deferred=True)
    overview: Mapped[JsonObject] = mapped_column(server_default=text("'{}'"))
    created_at: Mapped[float] = mapped_column(Double, default=now())
    deleted_at: Mapped[float | None] = mapped_column(Double)

    __table_args__ = (UniqueConstraint("name", "version"),)

    @property
    def label_format(self) -> LabelFormat:
        """What the labels were checked as."""
        if targets := self.overview.get("targets"):
            task = SeveralTargetsSpec.model_validate({"targets": targets})
            return LabelFormat(task.type, targets=list_target_columns(task))
        columns = self.overview.get("label_columns")
        return LabelFormat(
            self.overview.get("task", SINGLE_LABEL.task),
            self.overview.get("label_separator"),
            columns and tuple(columns),
            self.overview.get("ordered", False),
        )

    @validates("profile")
    def _update_overview(self, _: str, profile: JsonObject) -> JsonObject:
        self.overview = summarize_profile(profile)
        return profile


def summarize_profile(profile: JsonObject) -> JsonObject:
    """Return the part of a profile that lists show; its size does not grow with the labels."""
    labels: dict[str, int] = profile.get("labels", {})
    most_frequent = sorted(labels.items(), key=lambda item: -item[1])[:MAX_LISTED_LABELS]
    diagnosis = profile.get("diagnosis")
    levels = Counter(each["level"] for each in diagnosis["findings"]) if diagnosis else None
    return {
        **{name: value for name, value in profile.items() if name not in _UNBOUNDED_KEYS},
        "labels": dict(most_frequent),
        "label_count": len(labels),
        "findings": levels,
    }
