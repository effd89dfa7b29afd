"""Request and response bodies of the model routes."""

from typing import Any
from uuid import UUID

from pydantic import Field

from app.http.fields import RequestModel, ResponseModel, Timestamp, multipart_file_openapi
from lora_core.results import Verdict


class VersionCreate(RequestModel):
    """The job whose model is registered as a version."""

    job_id: UUID


class AliasUpdate(RequestModel):
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

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the model; None of an import."""
        found = self.metrics.get("verdict")
        return Verdict.model_validate(found) if found else None


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


IMPORT_FORM = multipart_file_openapi("The tar file of GET /v1/artifacts/{id}/archive.")
