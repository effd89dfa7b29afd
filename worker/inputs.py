"""Resolves the inputs of a job to local files.

A job names its data and model as users do (`reviews:2`, `sentiment:3`); the training process gets
local paths. Whatever comes back from it (messages, the manifest) must use the public names again.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from app.database.base import JsonObject
from app.database.engines import Database
from app.datasets import files
from app.datasets import repository as datasets
from app.datasets.tables import Dataset
from app.jobs.data_sources import ALL_ROWS
from app.queue.enums import JobKind
from app.queue.fencing import ClaimedJob
from app.registry import service as registry
from app.settings import Settings
from app.storage.store import Store, verify_and_assemble_artifact
from app.storage.tables import MODEL_KIND, RESULTS_KIND, VECTORS_KIND
from lora_core.confinement_paths import link_targets
from lora_core.errors.artifact import ArtifactCorrupt
from lora_core.hf_hub import HUB_PREFIX
from lora_core.model_imports import metadata
from lora_core.specs.data import local_paths, parse_sheet_suffix
from lora_core.specs.fields import looks_like_model_version, looks_like_path
from worker.failures import InputChanged


class JobKindSettings(NamedTuple):
    """How a kind of job is run and where its result is stored."""

    command: str  # subcommand of `python -m lora_core`
    model_field: str  # field of the spec that names the model to start from
    artifact_kind: str  # kind of the resulting artifact
    key_prefix: str  # first part of the result's storage key


JOB_KINDS = {
    JobKind.TRAINING: JobKindSettings("train", "base", artifact_kind=MODEL_KIND, key_prefix="jobs"),
    JobKind.PREDICTION: JobKindSettings(
        "predict-file", "model", artifact_kind=RESULTS_KIND, key_prefix="predictions"
    ),
    JobKind.EMBEDDING: JobKindSettings(
        "embed-file", "base", artifact_kind=VECTORS_KIND, key_prefix="vectors"
    ),
}


@dataclass(frozen=True)
class LocalInputs:
    """The spec with local paths, the public name of each path, and the files behind them."""

    spec: JsonObject
    public_names: Mapping[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()

    def mentions_input(self, text: str) -> bool:
        """Return whether a text names an input as the process does: by its path or file name."""
        paths = (Path(parse_sheet_suffix(local)[0]) for local in self.public_names)
        # A name may be a short word: it must not be a part of another.
        return any(
            str(path) in text or re.search(rf"(?<![\w/:.-]){re.escape(path.name)}(?![\w/-])", text)
            for path in paths
        )

    def replace_local_paths(self, value: Any) -> Any:
        """Return the same JSON value with public names in place of local paths."""
        if isinstance(value, str):
            for local, name in self.public_names.items():
                value = value.replace(local, name)
            return value
        if isinstance(value, Mapping):
            return {key: self.replace_local_paths(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.replace_local_paths(each) for each in value]
        return value


def needs_hub(spec: JsonObject) -> bool:
    """Return whether base or data come from the hub. Only hub bases have a revision."""
    is_from_hub = any(each.startswith(HUB_PREFIX) for each in _sources(spec))
    return bool(spec.get("base_revision")) or is_from_hub


def _sources(spec: JsonObject) -> Collection[str]:
    source = spec["data"]["source"]
    return source.values() if isinstance(source, Mapping) else [source]


def resolve_inputs(
    database: Database, claimed: ClaimedJob, *, settings: Settings, store: Store, model_dir: Path
) -> LocalInputs:
    """Find the inputs of a job and check that their bytes have not changed.

    A model is put together in `model_dir`, a new directory. Files are read after the database
    session is closed, so that no writer waits for the disk. Raises `InputChanged`,
    `DatasetNotFound`, `ModelNotFound`, `StoredArtifactCorrupt`, any error of the store, and for an
    imported version `InvalidImportedModel` and `UnsupportedTokenizer`.
    """
    spec, kind = dict(claimed.spec), JOB_KINDS[claimed.kind]
    model = spec[kind.model_field]
    names: dict[str, str] = {}
    with database.read() as session:
        uploads = {
            split: datasets.get_dataset(session, UUID(dataset_id))
            for split, dataset_id in claimed.dataset_ids.items()
        }
        version = (
            registry.resolve_model(session, model)
            if model and looks_like_model_version(model)
            else None
        )
    sources: dict[str, str] = {}
    for split, upload in uploads.items():
        name = f"{upload.name}:{upload.version}"
        path = _find_file(upload, name, settings, store)
        sheet = upload.overview.get("sheet")
        sources[split] = f"{path}#{sheet}" if sheet else str(path)
        names |= {sources[split]: name, str(path): name, path.name: name}
    if sources:
        source: Any = sources.get(ALL_ROWS)
        if source is None:
            source = {**spec["data"]["source"], **sources}
        spec["data"] = {**spec["data"], "source": source}
    if version is not None:
        name = f"model {version.ref}"
        artifact_dir = verify_and_assemble_artifact(store, version.artifact, model_dir, name=name)
        if version.imported:
            metadata.validate_model_metadata(
                artifact_dir
            )  # may have been imported before these checks
        spec[kind.model_field] = str(artifact_dir)
        names[spec[kind.model_field]] = version.ref
    return LocalInputs(spec, names, list(_files_to_read(spec, spec[kind.model_field])))


def _files_to_read(spec: JsonObject, model: str | None) -> Iterator[Path]:
    """Yield the files and directories that a process with this local spec reads."""
    yield from local_paths(_sources(spec))
    if model and looks_like_path(model):
        yield Path(model)
        yield from link_targets(Path(model))


def _find_file(upload: Dataset, name: str, settings: Settings, store: Store) -> Path:
    try:
        return files.fetch_file(settings, store, upload)
    except ArtifactCorrupt as error:
        raise InputChanged(name=name) from error
