"""Tables of registered models, versions and aliases."""

from uuid import UUID

from sqlalchemy import Double, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, JsonObject, new_id, now

PRODUCTION = "production"  # the alias that a model name without alias or version stands for
SHADOW = "shadow"  # the alias whose version predicts the same texts, only to be compared


class RegisteredModel(Base):
    """A named model, which has versions.

    The row outlives its versions, so that version numbers are never reused. A model without
    versions is hidden.
    """

    __tablename__ = "registered_models"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    last_number: Mapped[int] = mapped_column(default=0)  # of its newest version, deleted or not
    created_at: Mapped[float] = mapped_column(Double, default=now())


class ModelVersion(Base):
    """A version of a model, with one artifact: `sentiment:3`."""

    __tablename__ = "model_versions"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    model_id: Mapped[UUID] = mapped_column(ForeignKey("registered_models.id", ondelete="CASCADE"))
    number: Mapped[int]
    artifact_id: Mapped[UUID] = mapped_column(ForeignKey("artifacts.id"), index=True)
    job_id: Mapped[UUID | None] = mapped_column(index=True)
    base: Mapped[str] = mapped_column(String(512))  # empty for linear models
    method: Mapped[str] = mapped_column(String(32))
    metrics: Mapped[JsonObject]
    created_at: Mapped[float] = mapped_column(Double, default=now())

    __table_args__ = (UniqueConstraint("model_id", "number"),)

    @property
    def imported(self) -> bool:
        """Whether it was imported. A version that was trained here always keeps its job's id."""
        return self.job_id is None


class ModelAlias(Base):
    """A movable name of a version: `sentiment@production`. Moving it deploys or rolls back."""

    __tablename__ = "model_aliases"

    model_id: Mapped[UUID] = mapped_column(
        ForeignKey("registered_models.id", ondelete="CASCADE"), primary_key=True
    )
    alias: Mapped[str] = mapped_column(String(64), primary_key=True)
    version_id: Mapped[UUID] = mapped_column(ForeignKey("model_versions.id"), index=True)
    previous_id: Mapped[UUID | None] = mapped_column(  # where it pointed before
        ForeignKey("model_versions.id", ondelete="SET NULL"), index=True
    )
    moved_at: Mapped[float] = mapped_column(Double, default=now())
