"""The table of artifacts: models, and results of prediction runs."""

from uuid import UUID

from sqlalchemy import Double, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, BigInt, new_id, now
from app.storage.store import ArtifactRef

# Values of `artifacts.kind`.
MODEL_KIND = "model"  # from a training job, with its model
METRICS_KIND = "metrics"  # from a training job that keeps its metrics but not its model
RESULTS_KIND = "results"  # from a prediction run


class Artifact(Base):
    """An immutable directory with a manifest. It is in use only if it has a row."""

    __tablename__ = "artifacts"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    # The job that made it, which may have been deleted since.
    job_id: Mapped[UUID | None] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(16))
    key: Mapped[str] = mapped_column(String(255))  # key in the store
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[BigInt]
    created_at: Mapped[float] = mapped_column(Double, default=now())

    @property
    def ref(self) -> ArtifactRef:
        """The reference to the stored directory."""
        return ArtifactRef(self.key, self.manifest_sha256, self.bytes)
