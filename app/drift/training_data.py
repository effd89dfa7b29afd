"""The texts that a version was trained on, as far as they are stored."""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.datasets.files import FileInspector, SelectedColumns
from app.datasets.tables import Dataset
from app.drift.errors import TrainingDataDeleted, TrainingDataNotStored, TrainingDataUnknown
from app.queue.tables import Job
from app.registry import repository as registry
from app.registry.refs import ModelRef
from app.registry.service import ResolvedModel
from app.settings import Settings
from app.storage.store import Store
from lora_core.hf_hub import HUB_PREFIX
from lora_core.samples import reviews
from lora_core.specs.data import Split

_ALL_ROWS = "all"  # key of a source that is not divided into splits (`app.jobs.data_sources`)


@dataclass(frozen=True)
class TrainingDataSource:
    """Where the training texts of a version are: in a dataset, or in a sample."""

    name: str
    dataset: Dataset | None  # None: a sample

    def label_shares(self) -> dict[str, float]:
        """Return the share of the rows that have each label; empty if it is not known.

        Of several targets, labels are named TARGET/LABEL.
        """
        if self.dataset is not None:
            counts: dict[str, int] = self.dataset.profile["labels"]
            return {label: count / self.dataset.rows for label, count in counts.items()}
        sample = reviews.SAMPLES[self.name]
        return {label: count / sample.rows for label, count in sample.labels.items()}

    def build_file_inspector(self, store: Store, settings: Settings) -> FileInspector:
        """Return what reads the file. Raises what `fetch_dataset_file` raises."""
        if self.dataset is not None:
            return datasets.build_file_inspector(store, settings, self.dataset)
        columns = SelectedColumns(text="text", label="label", split=None)
        return FileInspector(Path(self.name), self.name, columns, settings)


def get_training_data(session: Session, resolved: ResolvedModel) -> TrainingDataSource:
    """Return the training data of a version.

    Raises `TrainingDataUnknown`, `TrainingDataDeleted`, `TrainingDataNotStored`.
    """
    version = registry.get_version(session, ModelRef(resolved.name, number=resolved.number))
    if version.job_id is None:
        raise TrainingDataUnknown(version=resolved.ref, reason="it was imported")
    job = session.get(Job, version.job_id)
    if job is None:
        raise TrainingDataUnknown(version=resolved.ref, reason="its job was deleted")
    source = job.spec["data"]["source"]
    name: str = source if isinstance(source, str) else source[Split.TRAIN]
    dataset_id = job.dataset_ids.get(_ALL_ROWS) or job.dataset_ids.get(Split.TRAIN)
    if dataset_id is not None:
        dataset = session.get(Dataset, UUID(dataset_id))
        if dataset is None or dataset.deleted_at is not None:
            raise TrainingDataDeleted(version=resolved.ref, dataset=name)
        return TrainingDataSource(name, dataset)
    if name.startswith(HUB_PREFIX):
        raise TrainingDataNotStored(version=resolved.ref, source=name)
    if name not in reviews.SAMPLES:  # the data of a job of version 0.1, which has no dataset id
        raise TrainingDataUnknown(version=resolved.ref, reason=f"its data {name} is not stored")
    return TrainingDataSource(name, None)
