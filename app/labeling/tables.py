"""Tables of labeling projects: which texts were chosen, who has them, and who labeled them how.

The texts stay in the file of the dataset. A row number is that of the file; 1 is the first data
row. All writes of a project lock its row first.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    String,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, enum_check, new_id, now
from app.labeling.schemas import ChosenTextReason
from app.privacy.text_hashes import HASH_LENGTH

ANNOTATOR_CHARACTERS = 160  # of "key/annotator"
# A label, a list of labels, or a number.
_Value = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


class LabelingProject(Base):
    """A pool of texts, and what is asked about each."""

    __tablename__ = "labeling_projects"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_by: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    name: Mapped[str] = mapped_column(String(64), unique=True)
    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"), index=True)
    task: Mapped[str] = mapped_column(String(16))
    ordered: Mapped[bool]
    labels: Mapped[list[str]] = mapped_column(JSON)
    base: Mapped[str] = mapped_column(String(512))
    base_revision: Mapped[str | None] = mapped_column(String(64))
    # The job that computes the vectors; None: it was deleted.
    job_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("jobs.id", ondelete="SET NULL"), index=True
    )
    random_share: Mapped[float] = mapped_column(Double)
    overlap: Mapped[float] = mapped_column(Double)
    seed: Mapped[int]
    chosen: Mapped[int] = mapped_column(default=0)  # number of texts chosen so far
    changes: Mapped[int] = mapped_column(default=0)  # of annotations; suggestions go stale by it
    created_at: Mapped[float] = mapped_column(Double, default=now())


class LabelingChosenText(Base):
    """A text that was chosen to be labeled, and why. It is never chosen again."""

    __tablename__ = "labeling_choices"

    project_id: Mapped[UUID] = mapped_column(
        ForeignKey("labeling_projects.id", ondelete="CASCADE"), primary_key=True
    )
    row: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[int]  # number of texts chosen before it
    reason: Mapped[str] = mapped_column(String(16))
    text_hash: Mapped[str] = mapped_column(String(HASH_LENGTH))
    first_hash: Mapped[str | None] = mapped_column(String(HASH_LENGTH))  # of the texts of a pair
    second_hash: Mapped[str | None] = mapped_column(String(HASH_LENGTH))
    missing: Mapped[int]  # annotations that are still wanted; may be negative
    hidden: Mapped[bool] = mapped_column(default=False, server_default=false())  # forgotten

    __table_args__ = (
        enum_check("reason", tuple(ChosenTextReason), "reason"),
        UniqueConstraint("project_id", "position"),
        Index(
            "ix_labeling_choices_open",
            "project_id",
            "position",
            sqlite_where=text("missing > 0"),
            postgresql_where=text("missing > 0"),
        ),
    )


class LabelingLease(Base):
    """A text that an annotator has in hand. Nobody else gets it until the lease expires."""

    __tablename__ = "labeling_leases"

    project_id: Mapped[UUID] = mapped_column(primary_key=True)
    row: Mapped[int] = mapped_column(primary_key=True)
    annotator: Mapped[str] = mapped_column(String(ANNOTATOR_CHARACTERS), primary_key=True)
    expires_at: Mapped[float] = mapped_column(Double)

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "row"],
            ["labeling_choices.project_id", "labeling_choices.row"],
            name="fk_labeling_leases_choice",
            ondelete="CASCADE",
        ),
    )


class LabelingAnnotation(Base):
    """What one annotator says of one text. The newest wins."""

    __tablename__ = "labeling_annotations"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    project_id: Mapped[UUID]
    row: Mapped[int]
    annotator: Mapped[str] = mapped_column(String(ANNOTATOR_CHARACTERS))
    created_by: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    value: Mapped[Any] = mapped_column(_Value, nullable=True)  # None: skipped
    reason: Mapped[str] = mapped_column(String(16))
    suggested: Mapped[Any] = mapped_column(_Value, nullable=True)
    at: Mapped[float] = mapped_column(Double, default=now())

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "row"],
            ["labeling_choices.project_id", "labeling_choices.row"],
            name="fk_labeling_annotations_choice",
            ondelete="CASCADE",
        ),
        enum_check("reason", tuple(ChosenTextReason), "reason"),
        UniqueConstraint("project_id", "row", "annotator"),
        Index("ix_labeling_annotations_annotator", "project_id", "annotator"),
    )

    @property
    def skipped(self) -> bool:
        """Whether the annotator did not label it."""
        return self.value is None
