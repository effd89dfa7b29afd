"""Routes for downloading artifacts."""

from pathlib import PurePosixPath
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import Field

from app.auth.middleware import require_scope
from app.database.engines import Database
from app.http.dependencies import DatabaseDep, StoreDep
from app.http.fields import file_response_openapi
from app.storage import repository
from app.storage.errors import ArtifactFileNotFound, ArtifactNotFound, StoredArtifactCorrupt
from app.storage.store import (
    ArtifactWithBase,
    Content,
    Store,
    get_artifact_directories,
    read_manifest,
    tar_stream,
)
from app.storage.tables import METRICS_KIND, MODEL_KIND, Artifact
from lora_core.manifest import MANIFEST_FILE, MODEL_CARD_FILE, has_model
from lora_core.model_card import ExportFormat, model_card

router = APIRouter(
    prefix="/v1/artifacts", tags=["artifacts"], dependencies=[require_scope("jobs:read")]
)

_BINARY = "application/octet-stream"
# For the schema only: other names give 404.
FileName = Annotated[
    str,
    Field(
        description="Name in the manifest, such as `adapter.safetensors`.",
        json_schema_extra={"maxLength": 512},
    ),
]


@router.get("/{artifact_id}")
def get_artifact_manifest(
    artifact_id: UUID, database: DatabaseDep, store: StoreDep
) -> dict[str, Any]:
    """Return the manifest: spec, metrics, labels, library versions, and each file's sha256."""
    artifact = _get_artifact(artifact_id, database)
    return read_manifest(store, artifact.ref, name=f"artifact {artifact.id}")


@router.get(
    "/{artifact_id}/files/{name:path}",
    response_class=FileResponse,
    responses=file_response_openapi(_BINARY),
)
def download_artifact_file(
    artifact_id: UUID, name: FileName, database: DatabaseDep, store: StoreDep
) -> Response:
    """Download one file, by its name in the manifest."""
    artifact, complete = _open_artifact(artifact_id, database, store)
    content = complete.find_file(name)
    if content is None:
        raise ArtifactFileNotFound(artifact_id=artifact.id)
    filename = PurePosixPath(name).name
    if isinstance(content, bytes):
        return Response(content, media_type=_BINARY, headers=_attachment(filename))
    return FileResponse(content, media_type=_BINARY, filename=filename)


@router.get("/{artifact_id}/archive", response_class=StreamingResponse)
def download_artifact_archive(
    artifact_id: UUID, database: DatabaseDep, store: StoreDep
) -> StreamingResponse:
    """Download all files as a tar archive, with a model card, `README.md`."""
    artifact, complete = _open_artifact(artifact_id, database, store)
    entries: list[tuple[str, Content]] = []
    for name in (MANIFEST_FILE, *complete.manifest["files"]):
        if (content := complete.find_file(name)) is None:
            raise StoredArtifactCorrupt(
                name=f"artifact {artifact.id}", problem=f"{name} is missing"
            )
        entries.append((name, content))
    if has_model(complete.manifest):
        card = model_card(complete.manifest, ExportFormat.LORAWORKS, name=str(artifact.id))
        entries.append((MODEL_CARD_FILE, card.encode()))
    return StreamingResponse(
        tar_stream(entries, prefix=str(artifact.id), modified=artifact.created_at),
        media_type="application/x-tar",
        headers=_attachment(f"{artifact.id}.tar"),
    )


def _attachment(filename: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{filename}"'}


def _open_artifact(
    artifact_id: UUID, database: Database, store: Store
) -> tuple[Artifact, ArtifactWithBase]:
    artifact = _get_artifact(artifact_id, database)
    return artifact, get_artifact_directories(store, artifact.ref, name=f"artifact {artifact.id}")


def _get_artifact(artifact_id: UUID, database: Database) -> Artifact:
    """Return a model, or the metrics of a training job.

    Results of prediction runs have routes of their own, which require another scope. A base is part
    of its models.
    """
    with database.read() as session:
        artifact = repository.get_artifact(session, artifact_id)
    if artifact.kind not in (MODEL_KIND, METRICS_KIND):
        raise ArtifactNotFound(artifact_id=artifact_id)
    return artifact
