"""The table of artifacts: models, results of prediction runs, and vectors of texts."""

from uuid import UUID

from sqlalchemy import Double, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.database.base import Base, BigInt, new_id, now
from app.storage.store import ArtifactRef

# Values of `artifacts.kind`.
MODEL_KIND = "model"  # from a training job, with its model
METRICS_KIND = "metrics"  # from a training job that keeps its metrics but not its model
RESULTS_KIND = "results"  # from a prediction run
VECTORS_KIND = "vectors"  # from a job that computes vectors of texts
BASE_KIND = "base"  # the frozen encoder of models, stored once for all of them


class Artifact(Base):
    """An immutable directory with a manifest. It is in use only if it has a row.

    A base is identified by `manifest_sha256`, computed here from its files.
    """

    __tablename__ = "artifacts"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    # The job that made it, which may have been deleted since.
    job_id: Mapped[UUID | None] = mapped_column(index=True)
    kind: Mapped[str] = mapped_column(String(16))
    key: Mapped[str] = mapped_column(String(255))  # key in the store
    manifest_sha256: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[BigInt]  # without those of its base
    base_id: Mapped[UUID | None] = mapped_column(ForeignKey("artifacts.id"), index=True)
    created_at: Mapped[float] = mapped_column(Double, default=now())

    base: Mapped["Artifact | None"] = relationship(remote_side=id, lazy="joined", join_depth=1)

    __table_args__ = (
        Index(
            "ix_artifacts_base_digest",
            "manifest_sha256",
            unique=True,
            sqlite_where=text("kind = 'base'"),
            postgresql_where=text("kind = 'base'"),
        ),
    )

    @property
    def ref(self) -> ArtifactRef:
        """The reference to the stored directory, and to its base."""
        base = self.base.ref if self.base_id is not None and self.base is not None else None
        return ArtifactRef(self.key, self.manifest_sha256, self.bytes, base)
