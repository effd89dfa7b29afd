"""From the description that a job keeps to the one that its training process reads.

A job names its data and base as users do (`reviews:2`, `sentiment:3`); the process gets local
paths. What comes back from it (messages, the manifest) must name them as users do again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.artifacts.content import verified
from app.artifacts.store import ArtifactStore
from app.datasets import files
from app.datasets import repository as datasets
from app.db.base import JsonObject
from app.db.engines import Database
from app.jobs.leases import Claimed
from app.registry import service as registry
from app.settings import Settings
from lora_core import manifest
from worker.errors import InputChanged


@dataclass(frozen=True)
class Inputs:
    """The description with local paths, and the public name of each."""

    spec: JsonObject
    names: Mapping[str, str] = field(default_factory=dict)

    def public(self, value: Any) -> Any:
        """The same JSON value with the public names in place of the paths."""
        if isinstance(value, str):
            for local, name in self.names.items():
                value = value.replace(local, name)
            return value
        if isinstance(value, Mapping):
            return {key: self.public(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.public(each) for each in value]
        return value


@dataclass(frozen=True)
class _Input:
    name: str
    path: Path
    sha256: str


def locate(
    database: Database, claimed: Claimed, *, settings: Settings, store: ArtifactStore
) -> Inputs:
    """Find the inputs of a job and check that their bytes are still the same.

    Files are read after the look at the rows, so that no writer waits for the disk. Raises
    `InputChanged`, `DatasetNotFound`, `ModelNotFound`, `ArtifactDamaged`.
    """
    spec = dict(claimed.spec)
    names: dict[str, str] = {}
    with database.read() as session:
        uploads = {
            part: _upload(session, UUID(dataset_id), settings)
            for part, dataset_id in claimed.dataset_ids.items()
        }
        version = registry.resolve(session, spec["base"]) if _is_version(spec["base"]) else None
    if uploads:
        sources = {part: str(upload.path) for part, upload in uploads.items()}
        source: Any = sources.get("all")
        if source is None:
            source = {**spec["data"]["source"], **sources}
        spec["data"] = {**spec["data"], "source": source}
    for upload in uploads.values():
        _check(upload)
        names |= {str(upload.path): upload.name, upload.path.name: upload.name}
    if version is not None:
        directory, _ = verified(
            store,
            key=version.artifact_key,
            manifest_sha256=version.manifest_sha256,
            name=f"model {version.ref}",
        )
        spec["base"] = str(directory / manifest.MERGED)
        names[spec["base"]] = version.ref
    return Inputs(spec, names)


def _upload(session: Session, dataset_id: UUID, settings: Settings) -> _Input:
    dataset = datasets.get(session, dataset_id)
    return _Input(
        f"{dataset.name}:{dataset.version}", files.path(settings, dataset), dataset.sha256
    )


def _check(upload: _Input) -> None:
    if not upload.path.is_file() or manifest.sha256(upload.path) != upload.sha256:
        raise InputChanged(name=upload.name)


def _is_version(base: str) -> bool:
    """`name:3`. Hub names have no colon, and paths begin with a dot or a slash."""
    return ":" in base and not base.startswith((".", "/"))
