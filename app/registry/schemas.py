"""Request and response bodies of the model routes."""

from typing import Any
from uuid import UUID

from pydantic import Field

from app.http.fields import RequestModel, ResponseModel, Timestamp, multipart_file_body
from app.registry.tables import ModelVersion
from lora_core.imports.metadata import bounded_metrics


class VersionCreate(RequestModel):
    """The job whose model is registered as a version."""

    job_id: UUID


class AliasMove(RequestModel):
    """The version that an alias is moved to."""

    version: int = Field(ge=1, lt=10**9, strict=True)


class VersionView(ResponseModel):
    """A version of a model."""

    number: int
    ref: str
    artifact_id: UUID
    job_id: UUID | None
    base: str | None = Field(description="Base model. Null for linear models.")
    method: str
    metrics: dict[str, Any]
    created_at: Timestamp

    @classmethod
    def from_version(cls, name: str, version: ModelVersion) -> "VersionView":
        return cls(
            number=version.number,
            ref=f"{name}:{version.number}",
            artifact_id=version.artifact_id,
            job_id=version.job_id,
            base=version.base or None,
            method=version.method,
            metrics=bounded_metrics(version.metrics) if version.imported else version.metrics,
            created_at=version.created_at,
        )


class ModelListItem(ResponseModel):
    """A model in a list; `aliases` gives the version number of each alias."""

    name: str
    created_at: Timestamp
    aliases: dict[str, int]
    version_count: int
    newest: int = Field(description="Number of the newest version.")


class ModelView(ResponseModel):
    """A model with its versions, the newest first, and the version number of each alias."""

    name: str
    created_at: Timestamp
    aliases: dict[str, int]
    versions: list[VersionView]


IMPORT_FORM = multipart_file_body("The tar file of GET /v1/artifacts/{id}/archive.")
