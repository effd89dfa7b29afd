"""Options of form fields: values of settings, data sources, base models and models to query.

Datasets and models are listed only if the caller may read them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import EnumType
from typing import Any, Literal, get_args, get_origin
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.orm import Session

from app.datasets import repository as datasets
from app.datasets.schemas import DatasetListItem
from app.datasets.tables import Dataset
from app.datasets.views import dataset_list_item
from app.http.dependencies import Caller
from app.registry import repository as registry
from app.registry.errors import InvalidModelRef, ModelNotFound
from app.registry.refs import parse_ref
from app.registry.tables import PRODUCTION, RegisteredModel
from app.settings import Settings
from lora_core.hf_hub import ALLOW_ANY, HUB_PREFIX
from lora_core.samples import minilm, reviews
from lora_core.samples.reviews import SampleStatistics

_MAX_OPTIONS = 100  # uploads or models listed, newest first


@dataclass(frozen=True)
class ModelRefOption:
    """A model reference that can be queried. Its artifact holds example texts."""

    ref: str
    description: str
    artifact_id: str


def list_allowed_values(model: type[BaseModel], name: str) -> list[str]:
    """List the values of a field that is an enum or a literal, without `auto`, the default."""
    return [each for each in _values(model.model_fields[name].annotation) if each != "auto"]


def _values(annotation: Any) -> Iterator[str]:
    if isinstance(annotation, EnumType) or get_origin(annotation) is Literal:
        yield from annotation if isinstance(annotation, EnumType) else get_args(annotation)
    else:
        for member in get_args(annotation):
            yield from _values(member)


def can_run_sample_job() -> bool:
    """Return whether the sample base model and the sample datasets are on this host."""
    return minilm.is_available() and reviews.is_available()


def sample_datasets() -> Mapping[str, SampleStatistics]:
    """Return the sample datasets that jobs can train on, by name."""
    return reviews.SAMPLES if reviews.is_available() else {}


def data_sources(session: Session, settings: Settings, caller: Caller) -> list[str]:
    """List sample datasets, uploads and configured Hugging Face datasets."""
    uploads: Iterable[Dataset] = ()
    if "datasets:read" in caller.scopes:
        uploads = datasets.list_datasets(session, after=None, limit=_MAX_OPTIONS)
    return [
        *sample_datasets(),
        *dict.fromkeys(upload.name for upload in uploads),  # one entry for all versions of a name
        *(f"{HUB_PREFIX}{name}" for name in settings.hub_datasets if name != ALLOW_ANY),
    ]


def unlabeled_datasets(session: Session, wanted: DatasetListItem | None) -> list[DatasetListItem]:
    """List uploads without labels, newest first, and the wanted one, however old it is."""
    rows = datasets.list_datasets(session, after=None, limit=_MAX_OPTIONS, unlabeled_only=True)
    listed = [dataset_list_item(row) for row in rows]
    if wanted is not None and wanted.label_column is None and wanted not in listed:
        listed.append(wanted)
    return listed


def base_models(session: Session, settings: Settings, caller: Caller) -> list[str]:
    """List the sample base model, registered models and configured Hugging Face models."""
    samples = [minilm.NAME] if minilm.is_available() else []
    hub_models = [name for name in settings.hub_models if name != ALLOW_ANY]
    return [*samples, *model_names(session, caller), *hub_models]


def model_names(session: Session, caller: Caller) -> list[str]:
    """List registered models, newest first."""
    return [model.name for model in _models(session, caller)]


def model_options(
    session: Session, caller: Caller, *wanted: str | None
) -> dict[str, list[ModelRefOption]]:
    """List every model reference that can be queried, by model name.

    `wanted`: references whose models are listed, however old they are.
    """
    models = _models(session, caller, *wanted)
    ids = [model.id for model in models]
    artifact_ids = registry.list_artifact_ids_by_version(session, ids)
    aliases = registry.list_version_numbers_by_alias(session, ids)
    return {
        model.name: _options_of(model.name, artifact_ids[model.id], aliases[model.id])
        for model in models
    }


def _models(session: Session, caller: Caller, *wanted: str | None) -> Sequence[RegisteredModel]:
    if "models:read" not in caller.scopes:
        return []
    models = list(registry.list_models(session, after=None, limit=_MAX_OPTIONS))
    for ref in filter(None, wanted):
        with suppress(InvalidModelRef, ModelNotFound):
            models.append(registry.get_model(session, parse_ref(ref).name))
    return list(dict.fromkeys(models))


def _options_of(
    name: str, artifact_ids: Mapping[int, UUID], aliases: Mapping[str, int]
) -> list[ModelRefOption]:
    """List the production alias, the other aliases, then each version."""

    def option(ref: str, description: str, number: int) -> ModelRefOption:
        return ModelRefOption(ref, description, str(artifact_ids[number]))

    return [
        *(
            option(name, f"{PRODUCTION}, now version {number}", number)
            for alias, number in aliases.items()
            if alias == PRODUCTION
        ),
        *(
            option(f"{name}@{alias}", f"{alias}, now version {number}", number)
            for alias, number in aliases.items()
            if alias != PRODUCTION
        ),
        *(option(f"{name}:{number}", f"version {number}", number) for number in artifact_ids),
    ]
