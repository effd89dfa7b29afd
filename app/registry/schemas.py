"""Bodies of the model routes."""

from typing import Any
from uuid import UUID

from pydantic import Field

from app.http.fields import Body, Timestamp, View, file_form
from app.registry.tables import ModelVersion
from lora_core.imports.metadata import shown


class VersionCreate(Body):
    """Which job's result becomes a version."""

    job_id: UUID


class AliasMove(Body):
    """Where an alias shall point."""

    version: int = Field(ge=1, lt=10**9, strict=True)


class VersionView(View):
    """One version of a model."""

    number: int
    ref: str
    artifact_id: UUID
    job_id: UUID | None
    base: str | None = Field(description="Null: a linear model has none.")
    method: str
    metrics: dict[str, Any]
    created_at: Timestamp

    @classmethod
    def of(cls, name: str, version: ModelVersion) -> "VersionView":
        return cls(
            number=version.number,
            ref=f"{name}:{version.number}",
            artifact_id=version.artifact_id,
            job_id=version.job_id,
            base=version.base or None,
            method=version.method,
            metrics=shown(version.metrics) if version.imported else version.metrics,
            created_at=version.created_at,
        )


class ModelListItem(View):
    """A name, as lists show it; the aliases point at its versions."""

    name: str
    created_at: Timestamp
    aliases: dict[str, int]
    version_count: int
    newest: int = Field(description="Number of the newest version.")


class ModelView(View):
    """A name with its versions, the newest first, and the aliases that point at them."""

    name: str
    created_at: Timestamp
    aliases: dict[str, int]
    versions: list[VersionView]


IMPORT_FORM = file_form("The tar file of GET /v1/artifacts/{id}/archive.")
