"""Tables of suspect labels, of kept labels, and of corrections."""

from uuid import UUID

from sqlalchemy import Double, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, JsonObject, now


class StoredSuspects(Base):
    """The suspect labels of a dataset, computed once. Deleted with it, or when they are old."""

    __tablename__ = "dataset_suspects"

    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    target: Mapped[str] = mapped_column(String(256), primary_key=True)  # "" without several targets
    report: Mapped[JsonObject]  # a `SuspectLabelReport`
    created_at: Mapped[float] = mapped_column(Double, default=now())


class ConfirmedLabelDigest(Base):
    """A label that somebody looked at and kept. Versions of a name share them.

    `digest` is a keyed hash of the text and its label, so that it holds in later versions as well.
    """

    __tablename__ = "kept_labels"

    dataset_name: Mapped[str] = mapped_column(String(64), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_by: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    created_at: Mapped[float] = mapped_column(Double, default=now())


class DatasetCorrection(Base):
    """Where a version of a dataset comes from that was made by correcting labels."""

    __tablename__ = "dataset_corrections"

    dataset_id: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"), primary_key=True)
    corrected_from: Mapped[UUID] = mapped_column(ForeignKey("datasets.id"))
    created_by: Mapped[UUID] = mapped_column(ForeignKey("api_keys.id"))
    # {"changes": […], "left_out": […]}, as in `CorrectionResult`; earlier versions left nothing out
    changes: Mapped[JsonObject]
    kept: Mapped[int]  # labels that were kept by the same request
    created_at: Mapped[float] = mapped_column(Double, default=now())
