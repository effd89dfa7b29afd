"""Rows of data sets."""

import re
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import Select, String, cast, column, func, select, table
from sqlalchemy.orm import Session, undefer

from app.database.clock import now
from app.datasets.errors import DatasetNotFound
from app.datasets.tables import Dataset

_REF = re.compile(r"([a-z0-9-]{1,64})(?::([1-9][0-9]{0,8}))?")

# Jobs lie above data sets and cannot be imported here; this look at who still reads a file knows
# two of their columns by name. Prediction runs are among them.
_JOBS = table("jobs", column("state"), column("dataset_ids"))


def get(session: Session, dataset_id: UUID, *, alone: bool = False) -> Dataset:
    """`alone` waits for whoever holds it, and lets nobody hold it. Raises `DatasetNotFound`."""
    statement = _present().where(Dataset.id == dataset_id)
    dataset = session.scalar(statement.with_for_update() if alone else statement)
    if dataset is None:
        raise DatasetNotFound(ref=dataset_id)
    return dataset


def hold(session: Session, dataset_id: UUID) -> bool:
    """Keep it from being deleted until this transaction ends. `False`: it was deleted."""
    statement = _present().where(Dataset.id == dataset_id)
    return session.scalar(statement.with_for_update(read=True, key_share=True)) is not None


def resolve(session: Session, ref: str) -> Dataset:
    """What "name" (its newest), "name:2" or an id means now. Raises `DatasetNotFound`."""
    dataset = session.scalar(_present().where(Dataset.id == _id(ref)))
    if dataset is None and (match := _REF.fullmatch(ref)):
        name, version = match.groups()
        statement = _present().where(Dataset.name == name)
        if version is not None:
            statement = statement.where(Dataset.version == int(version))
        dataset = session.scalar(statement.order_by(Dataset.version.desc()).limit(1))
    if dataset is None:
        raise DatasetNotFound(ref=repr(ref[:100]))
    return dataset


def page(session: Session, *, after: UUID | None, limit: int) -> Sequence[Dataset]:
    """The newest first."""
    statement = _present().order_by(Dataset.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(Dataset.id < after)
    return session.scalars(statement).all()


def versions(session: Session, name: str) -> Sequence[Dataset]:
    """All of a name, the newest first."""
    statement = _present().where(Dataset.name == name).order_by(Dataset.version.desc())
    return session.scalars(statement).all()


def same(session: Session, wanted: Dataset) -> Dataset | None:
    """One of the same name with the same bytes, read in the same way; with its profile."""
    return session.scalars(
        _present()
        .options(undefer(Dataset.profile))
        .where(
            Dataset.name == wanted.name,
            Dataset.sha256 == wanted.sha256,
            Dataset.suffix == wanted.suffix,
            Dataset.text_column == wanted.text_column,
            Dataset.label_column.is_not_distinct_from(wanted.label_column),
            Dataset.split_column.is_not_distinct_from(wanted.split_column),
            Dataset.sheet.is_not_distinct_from(wanted.sheet),
        )
        .order_by(Dataset.version.desc())
    ).first()


def bytes_of(session: Session, caller_id: UUID) -> int:
    """Bytes of all data sets that this caller keeps."""
    statement = select(func.sum(Dataset.bytes)).where(
        Dataset.created_by == caller_id, Dataset.deleted_at.is_(None)
    )
    return int(session.scalar(statement) or 0)


def add(session: Session, dataset: Dataset) -> None:
    """Insert under the next version of its name. Numbers of deleted ones do not come back."""
    last = session.scalar(select(func.max(Dataset.version)).where(Dataset.name == dataset.name))
    dataset.version = (last or 0) + 1
    session.add(dataset)
    session.flush()


def readers(session: Session, dataset_id: UUID) -> int:
    """How many queued or running jobs and prediction runs read it."""
    reads_it = cast(_JOBS.c.dataset_ids, String).contains(str(dataset_id))
    # One state at a time: each has an index of its own.
    return sum(
        session.scalars(
            select(func.count()).select_from(_JOBS).where(_JOBS.c.state == state, reads_it)
        ).one()
        for state in ("queued", "running")
    )


def mark_deleted(session: Session, dataset: Dataset) -> None:
    """From now on it is not found. The caller removes the file after its commit."""
    dataset.deleted_at = now()
    # The row stays for the record, what it tells of the texts does not.
    dataset.profile = {**dataset.profile, "diagnosis": None}
    session.flush()


def _present() -> Select[Dataset]:
    return select(Dataset).where(Dataset.deleted_at.is_(None))


def _id(ref: str) -> UUID | None:
    try:
        return UUID(ref) if len(ref) == 36 else None
    except ValueError:
        return None
