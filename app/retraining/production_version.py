"""What the version in production was made of: its job, its data, and which of them are live."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from app.datasets import repository as datasets
from app.datasets import service as dataset_service
from app.datasets.errors import DatasetNotFound
from app.datasets.tables import Dataset
from app.jobs import repository as jobs
from app.jobs.data_sources import ALL_ROWS
from app.jobs.resolve import read_spec_to_copy
from app.queue.enums import JobKind
from app.registry import repository as registry
from app.registry.refs import ModelRef
from app.registry.tables import PRODUCTION
from app.retraining import repository
from app.retraining.errors import (
    RetrainingDataDeleted,
    RetrainingDataNotStored,
    TrainingJobDeleted,
    VersionNotTrainedHere,
)
from app.retraining.feedback_labels import TaskIOSchema
from app.settings import Settings
from app.storage.store import Store
from lora_core.hf_hub import HUB_PREFIX
from lora_core.specs.data import Split, local_paths
from lora_core.specs.train import TrainSpec


@dataclass(frozen=True)
class TrainedVersion:
    """A version that was trained here, with everything that a retraining of it needs."""

    number: int
    spec: TrainSpec
    uploads: Mapping[str, Dataset]  # by split, or under `ALL_ROWS`
    first_live_row: int | None  # of the data; None: they have no texts of an earlier run
    time_limit_seconds: float | None

    @property
    def io_schema(self) -> TaskIOSchema:
        """What it reads and predicts."""
        pairs = self.spec.data.text_pair_column is not None
        return TaskIOSchema.of_task(self.spec.task, pairs=pairs)

    @property
    def data_source_name(self) -> str:
        """The names of its data."""
        return _source_name(self.spec.data.source)

    def build_spec_with_local_files(self, store: Store, settings: Settings) -> dict[str, Any]:
        """Return the spec with local files in place of datasets.

        Raises what `fetch_dataset_file` raises.
        """
        spec = self.spec.model_dump(mode="json")
        paths = {
            split: _local_source(
                dataset_service.fetch_dataset_file(store, settings=settings, dataset=upload), upload
            )
            for split, upload in self.uploads.items()
        }
        if ALL_ROWS in paths:
            spec["data"]["source"] = paths[ALL_ROWS]
        elif paths:
            spec["data"]["source"] |= paths
        return spec


def read_production_version(session: Session, name: str) -> TrainedVersion:
    """Return the version of a model in production.

    Raises `NoModelPromoted`, `VersionNotTrainedHere`, `TrainingJobDeleted`,
    `RetrainingDataDeleted`, `RetrainingDataNotStored`.
    """
    version = registry.get_version(session, ModelRef(name, alias=PRODUCTION))
    ref = f"{name}:{version.number}"
    if version.job_id is None:
        raise VersionNotTrainedHere(version=ref)
    job = jobs.find_job(session, version.job_id, kind=JobKind.TRAINING)
    if job is None:
        raise TrainingJobDeleted(version=ref)
    spec = read_spec_to_copy(job)
    source = _source_name(spec.data.source)
    if any(each.startswith(HUB_PREFIX) for each in _sources(spec.data.source)):
        raise RetrainingDataNotStored(version=ref, source=source)
    try:
        uploads = {
            split: datasets.get_dataset(session, UUID(dataset_id))
            for split, dataset_id in job.dataset_ids.items()
        }
    except DatasetNotFound as error:
        raise RetrainingDataDeleted(version=ref, source=source) from error
    earlier = None
    if ALL_ROWS in uploads:
        earlier = repository.find_run_by_training_dataset(session, uploads[ALL_ROWS].id)
    kept_rows = None if earlier is None else earlier.kept_rows
    return TrainedVersion(
        number=version.number,
        spec=spec,
        uploads=uploads,
        first_live_row=None if kept_rows is None else kept_rows + 1,
        time_limit_seconds=job.time_limit_seconds,
    )


def _sources(source: str | Mapping[Split, str]) -> list[str]:
    if isinstance(source, str):
        return [source]
    return [source[split] for split in Split if split in source]  # PostgreSQL keeps no order


def _source_name(source: str | Mapping[Split, str]) -> str:
    return ", ".join(dict.fromkeys(_sources(source)))


def list_local_data_files(spec: Mapping[str, Any]) -> list[Path]:
    """Return the files that a spec with local files reads; none for a sample."""
    return local_paths(_sources(spec["data"]["source"]))


def _local_source(path: Path, upload: Dataset) -> str:
    sheet = upload.overview.get("sheet")
    return f"{path}#{sheet}" if sheet else str(path)
