"""From the description that a job keeps to the one that its training process reads.

A job names its data and model as users do (`reviews:2`, `sentiment:3`); the process gets local
paths. What comes back from it (messages, the manifest) must name them as users do again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from app.database.base import JsonObject
from app.database.engines import Database
from app.datasets import files
from app.datasets import repository as datasets
from app.datasets.tables import Dataset
from app.jobs.data_sources import ALL
from app.queue.fencing import Claimed
from app.registry import service as registry
from app.settings import Settings
from app.storage.archive import verified
from app.storage.store import Store
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.hub import PREFIX
from lora_core.imports import metadata
from lora_core.specs.base import is_version
from lora_core.specs.data import divided
from worker.failures import InputChanged
from worker.job_kinds import WORK


@dataclass(frozen=True)
class Inputs:
    """The description with local paths, and the public name of each."""

    spec: JsonObject
    names: Mapping[str, str] = field(default_factory=dict)

    def name_of_one(self, text: str) -> bool:
        """Whether a text names one of them as the process does: by its path, or the end of it."""
        return any(Path(divided(local)[0]).name in text for local in self.names)

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


def from_hub(spec: JsonObject) -> bool:
    """Whether base or data come from the hub. Only bases of the hub have a revision."""
    source = spec["data"]["source"]
    sources = source.values() if isinstance(source, Mapping) else [source]
    return bool(spec.get("base_revision")) or any(each.startswith(PREFIX) for each in sources)


def locate(database: Database, claimed: Claimed, *, settings: Settings, store: Store) -> Inputs:
    """Find the inputs of a job and check that their bytes are still the same.

    Files are read after the look at the rows, so that no writer waits for the disk. Raises
    `InputChanged`, `DatasetNotFound`, `ModelNotFound`, `ArtifactDamaged`, what a store raises, and
    for an imported version `ArtifactUnfit` and `TokenizerUnfit`.
    """
    spec, work = dict(claimed.spec), WORK[claimed.kind]
    model = spec[work.model]
    names: dict[str, str] = {}
    with database.read() as session:
        uploads = {
            part: datasets.get(session, UUID(dataset_id))
            for part, dataset_id in claimed.dataset_ids.items()
        }
        version = registry.resolve(session, model) if model and is_version(model) else None
    sources: dict[str, str] = {}
    for part, upload in uploads.items():
        name = f"{upload.name}:{upload.version}"
        path = _find(upload, name, settings, store)
        sheet = upload.overview.get("sheet")
        sources[part] = f"{path}#{sheet}" if sheet else str(path)
        names |= {sources[part]: name, str(path): name, path.name: name}
    if sources:
        source: Any = sources.get(ALL)
        if source is None:
            source = {**spec["data"]["source"], **sources}
        spec["data"] = {**spec["data"], "source": source}
    if version is not None:
        directory = verified(store, version.artifact, name=f"model {version.ref}")
        if version.imported:
            metadata.read(directory)  # it may have come in before there were rules
        spec[work.model] = str(work.of(directory))
        names[spec[work.model]] = version.ref
    return Inputs(spec, names)


def _find(upload: Dataset, name: str, settings: Settings, store: Store) -> Path:
    try:
        return files.find(settings, store, upload)
    except ArtifactCorrupt as error:
        raise InputChanged(name=name) from error
