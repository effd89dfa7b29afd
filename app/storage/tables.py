"""Finished directories: models, and results of prediction runs."""

from uuid import UUID

from sqlalchemy import Double, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, BigInt, new_id
from app.database.clock import now
from app.storage.store import ArtifactRef

# Kinds: what a training makes, with its model or without; what a prediction run makes.
MODEL, FIGURES, RESULTS = "model", "figures", "results"


class Artifact(Base):
    """An immutable directory with a manifest. A row, not a file, makes it count."""

    __tablename__ = "artifacts"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    # The job that made it; the job may be deleted later.
    job_id: Mapped[UUID | None] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(16))
    key: Mapped[str] = mapped_column(String(255))  # place inside the store
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[BigInt]
    created_at: Mapped[float] = mapped_column(Double, default=now())

    @property
    def ref(self) -> ArtifactRef:
        """The stored directory."""
        return ArtifactRef(self.key, self.manifest_sha256, self.bytes)
