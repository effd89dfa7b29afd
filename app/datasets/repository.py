"""Queries on datasets."""

import re
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Select, String, Uuid, cast, column, delete, func, select, table
from sqlalchemy.orm import Session, undefer

from app.database.base import now
from app.datasets.errors import DatasetNotFound
from app.datasets.tables import Dataset
from app.queue import active_jobs
from app.queue.tables import Job
from lora_core.data.label_readers import LabelFormat

_REF = re.compile(r"([a-z0-9-]{1,64})(?::([1-9][0-9]{0,8}))?")

# Corrections are a higher layer and cannot be imported here. What they have of a dataset is deleted
# with it.
_SUSPECTS = table("dataset_suspects", column("dataset_id", Uuid()))
_KEPT = table("kept_labels", column("dataset_name", String()))


def get_dataset(session: Session, dataset_id: UUID, *, for_update: bool = False) -> Dataset:
    """Return a dataset; `for_update` locks its row exclusively. Raises `DatasetNotFound`."""
    statement = _not_deleted().where(Dataset.id == dataset_id)
    dataset = session.scalar(statement.with_for_update() if for_update else statement)
    if dataset is None:
        raise DatasetNotFound(ref=dataset_id)
    return dataset


def lock_against_deletion(session: Session, dataset_id: UUID) -> bool:
    """Lock a dataset against deletion until the transaction ends; return False if it is gone."""
    statement = _not_deleted().where(Dataset.id == dataset_id)
    return session.scalar(statement.with_for_update(read=True, key_share=True)) is not None


def resolve_dataset(session: Session, ref: str) -> Dataset:
    """Return the dataset of a "name" (its newest version), a "name:2" or an id.

    Raises `DatasetNotFound`.
    """
    dataset = None
    if (dataset_id := _parse_id(ref)) is not None:
        dataset = session.scalar(_not_deleted().where(Dataset.id == dataset_id))
    if dataset is None and (match := _REF.fullmatch(ref)):
        name, version = match.groups()
        statement = _not_deleted().where(Dataset.name == name)
        if version is not None:
            statement = statement.where(Dataset.version == int(version))
        dataset = session.scalar(statement.order_by(Dataset.version.desc()).limit(1))
    if dataset is None:
        raise DatasetNotFound(ref=repr(ref[:100]))
    return dataset


def list_datasets(
    session: Session, *, after: UUID | None, limit: int, unlabeled_only: bool = False
) -> Sequence[Dataset]:
    """Return datasets, the newest first; `unlabeled_only`: those without labels."""
    statement = _not_deleted().order_by(Dataset.id.desc()).limit(limit)
    if unlabeled_only:
        statement = statement.where(Dataset.label_column.is_(None))
    if after is not None:
        statement = statement.where(Dataset.id < after)
    return session.scalars(statement).all()


def list_versions(session: Session, name: str) -> Sequence[Dataset]:
    """Return all versions of a name, the newest first."""
    statement = _not_deleted().where(Dataset.name == name).order_by(Dataset.version.desc())
    return session.scalars(statement).all()


def find_identical(session: Session, wanted: Dataset, label_format: LabelFormat) -> Dataset | None:
    """Return a dataset, with its profile, of the same name, bytes, format, columns and labels."""
    found = session.scalars(
        _not_deleted()
        .options(undefer(Dataset.profile))
        .where(
            Dataset.name == wanted.name,
            Dataset.sha256 == wanted.sha256,
            Dataset.suffix == wanted.suffix,
            Dataset.text_column == wanted.text_column,
            Dataset.text_pair_column.is_not_distinct_from(wanted.text_pair_column),
            Dataset.label_column.is_not_distinct_from(wanted.label_column),
            Dataset.split_column.is_not_distinct_from(wanted.split_column),
            Dataset.sheet.is_not_distinct_from(wanted.sheet),
        )
        .order_by(Dataset.version.desc())
    )
    return next((each for each in found if each.label_format == label_format), None)


def total_dataset_bytes_of_caller(session: Session, caller_id: UUID) -> int:
    """Return the total size of a caller's datasets, in bytes."""
    statement = select(func.sum(Dataset.bytes)).where(
        Dataset.created_by == caller_id, Dataset.deleted_at.is_(None)
    )
    return int(session.scalar(statement) or 0)


def add_dataset_version(session: Session, dataset: Dataset) -> None:
    """Insert as the next version of its name. Numbers of deleted versions are not reused."""
    last = session.scalar(select(func.max(Dataset.version)).where(Dataset.name == dataset.name))
    dataset.version = (last or 0) + 1
    session.add(dataset)
    session.flush()


def count_active_jobs(session: Session, dataset_id: UUID) -> int:
    """Return the number of queued or running jobs and prediction runs that read a dataset."""
    reads_dataset = cast(Job.dataset_ids, String).contains(str(dataset_id))
    return active_jobs.count_active_jobs(session, reads_dataset)


def soft_delete_dataset(session: Session, dataset: Dataset) -> None:
    """Mark a dataset as deleted. The caller deletes the file after its commit."""
    dataset.deleted_at = now()
    session.execute(delete(_SUSPECTS).where(_SUSPECTS.c.dataset_id == dataset.id))  # with texts
    if not list_versions(session, dataset.name):
        session.execute(delete(_KEPT).where(_KEPT.c.dataset_name == dataset.name))
    # The row is kept as a record, but not what has example texts or grows with the labels.
    dataset.profile = {**dataset.profile, "labels": {}, "similar_labels": [], "diagnosis": None}
    session.flush()


def count_and_last_time_of_deletions(session: Session) -> tuple[int, float | None]:
    """Return how many datasets were deleted, and when the last one was, in seconds since 1970."""
    statement = select(func.count(Dataset.deleted_at), func.max(Dataset.deleted_at))
    return session.execute(statement).one()


def _not_deleted() -> Select[Dataset]:
    return select(Dataset).where(Dataset.deleted_at.is_(None))


def _parse_id(ref: str) -> UUID | None:
    try:
        return UUID(ref) if len(ref) == 36 else None
    except ValueError:
        return None
