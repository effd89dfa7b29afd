"""Download of artifacts."""

from pathlib import Path
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from fastapi.responses import FileResponse, StreamingResponse

from app.auth.middleware import requires
from app.database.engines import Database
from app.http.dependencies import DatabaseDep, StoreDep
from app.storage import repository
from app.storage.archive import described, opened, plain_file, tar_stream
from app.storage.errors import ArtifactDamaged, ArtifactFileNotFound, ArtifactNotFound
from app.storage.store import Store
from app.storage.tables import RESULTS, Artifact
from lora_core.manifest import MANIFEST

router = APIRouter(prefix="/v1/artifacts", tags=["artifacts"], dependencies=[requires("jobs:read")])


@router.get("/{artifact_id}")
def read_manifest(artifact_id: UUID, database: DatabaseDep, store: StoreDep) -> dict[str, Any]:
    """The manifest: spec, metrics, labels, library versions, and every file with its sha256."""
    artifact = _find(artifact_id, database)
    return described(store, artifact.ref, name=f"artifact {artifact.id}")


@router.get("/{artifact_id}/files/{name:path}", response_class=FileResponse)
def read_file(artifact_id: UUID, name: str, database: DatabaseDep, store: StoreDep) -> FileResponse:
    """One file, by its name in the manifest."""
    artifact, directory, facts = _open(artifact_id, database, store)
    path = plain_file(directory, name) if name in (MANIFEST, *facts["files"]) else None
    if path is None:
        raise ArtifactFileNotFound(artifact_id=artifact.id)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


@router.get("/{artifact_id}/archive", response_class=StreamingResponse)
def read_archive(artifact_id: UUID, database: DatabaseDep, store: StoreDep) -> StreamingResponse:
    """The whole directory as a tar archive."""
    artifact, directory, facts = _open(artifact_id, database, store)
    names = (MANIFEST, *facts["files"])
    for name in names:
        if plain_file(directory, name) is None:
            raise ArtifactDamaged(name=f"artifact {artifact.id}", problem=f"{name} is missing")
    return StreamingResponse(
        tar_stream(directory, names, folder=str(artifact.id), modified=artifact.created_at),
        media_type="application/x-tar",
        headers={"Content-Disposition": f'attachment; filename="{artifact.id}.tar"'},
    )


def _open(
    artifact_id: UUID, database: Database, store: Store
) -> tuple[Artifact, Path, dict[str, Any]]:
    artifact = _find(artifact_id, database)
    return artifact, *opened(store, artifact.ref, name=f"artifact {artifact.id}")


def _find(artifact_id: UUID, database: Database) -> Artifact:
    """What a training made: results of a prediction run are read as such, with another scope."""
    with database.read() as session:
        artifact = repository.get(session, artifact_id)
    if artifact.kind == RESULTS:
        raise ArtifactNotFound(artifact_id=artifact_id)
    return artifact
