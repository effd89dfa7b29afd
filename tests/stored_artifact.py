"""Store an artifact as a worker does, with its base apart."""

from pathlib import Path
from uuid import UUID

from app.resources import Resources
from app.storage.staged_artifact import StagedArtifact
from app.storage.tables import MODEL_KIND, Artifact


def store_artifact(
    resources: Resources, directory: Path, key: str, *, job_id: UUID | None
) -> Artifact:
    """Move an artifact into the store, and insert its row. `key` is like `jobs/<id>/a1`."""
    new = StagedArtifact(resources.store, directory, key)

    def write() -> Artifact:
        with resources.database.write() as session:
            return new.add_row(session, job_id=job_id, kind=MODEL_KIND)

    return new.retry_after_storing_base(write)
