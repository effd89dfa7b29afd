"""Routes for downloading artifacts."""

from pathlib import Path
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import FileResponse, StreamingResponse

from app.auth.middleware import require_scope
from app.database.engines import Database
from app.http.dependencies import DatabaseDep, StoreDep
from app.storage import repository
from app.storage.errors import ArtifactFileNotFound, ArtifactNotFound, StoredArtifactCorrupt
from app.storage.store import Store, find_regular_file, open_artifact, read_manifest, tar_stream
from app.storage.tables import RESULTS_KIND, Artifact
from lora_core.manifest import MANIFEST

router = APIRouter(
    prefix="/v1/artifacts", tags=["artifacts"], dependencies=[require_scope("jobs:read")]
)


@router.get("/{artifact_id}")
def get_manifest(artifact_id: UUID, database: DatabaseDep, store: StoreDep) -> dict[str, Any]:
    """Return the manifest: spec, metrics, labels, library versions, and each file's sha256."""
    artifact = _get_artifact(artifact_id, database)
    return read_manifest(store, artifact.ref, name=f"artifact {artifact.id}")


@router.get("/{artifact_id}/files/{name:path}", response_class=FileResponse)
def download_file(
    artifact_id: UUID, name: str, database: DatabaseDep, store: StoreDep
) -> FileResponse:
    """Download one file, by its name in the manifest."""
    artifact, directory, manifest = _open_artifact(artifact_id, database, store)
    path = find_regular_file(directory, name) if name in (MANIFEST, *manifest["files"]) else None
    if path is None:
        raise ArtifactFileNotFound(artifact_id=artifact.id)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


@router.get("/{artifact_id}/archive", response_class=StreamingResponse)
def download_archive(
    artifact_id: UUID, database: DatabaseDep, store: StoreDep
) -> StreamingResponse:
    """Download the whole directory as a tar archive."""
    artifact, directory, manifest = _open_artifact(artifact_id, database, store)
    names = (MANIFEST, *manifest["files"])
    for name in names:
        if find_regular_file(directory, name) is None:
            raise StoredArtifactCorrupt(
                name=f"artifact {artifact.id}", problem=f"{name} is missing"
            )
    return StreamingResponse(
        tar_stream(directory, names, prefix=str(artifact.id), modified=artifact.created_at),
        media_type="application/x-tar",
        headers={"Content-Disposition": f'attachment; filename="{artifact.id}.tar"'},
    )


def _open_artifact(
    artifact_id: UUID, database: Database, store: Store
) -> tuple[Artifact, Path, dict[str, Any]]:
    artifact = _get_artifact(artifact_id, database)
    return artifact, *open_artifact(store, artifact.ref, name=f"artifact {artifact.id}")


def _get_artifact(artifact_id: UUID, database: Database) -> Artifact:
    """Return an artifact of a training job.

    Results of prediction runs have routes of their own, which require another scope.
    """
    with database.read() as session:
        artifact = repository.get_artifact(session, artifact_id)
    if artifact.kind == RESULTS_KIND:
        raise ArtifactNotFound(artifact_id=artifact_id)
    return artifact
