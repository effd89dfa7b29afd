"""Queries of erasing a text: stored responses, datasets to search, and what was made from them."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import String, cast, delete, or_, select, tuple_
from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.datasets.tables import Dataset
from app.idempotency.tables import IdempotencyKey
from app.queue.enums import JobKind
from app.queue.tables import Job
from app.registry.tables import ModelAlias, ModelVersion, RegisteredModel

PAGE_SIZE = 100  # responses of one query, which may be large
_primary_key = tuple_(IdempotencyKey.api_key_id, IdempotencyKey.route, IdempotencyKey.key)
_NO_SYNC = {"synchronize_session": False}


class IdempotentResponseKey(NamedTuple):
    """The primary key of a stored response."""

    api_key_id: UUID
    route: str
    key: str


class ReaderOfDeletedDataset(NamedTuple):
    """A job or prediction run with stored files, and a dataset that it read and that is deleted."""

    job_id: UUID
    kind: JobKind
    dataset: str  # reference


class VersionOrigin(NamedTuple):
    """A version and what it was made from."""

    ref: str
    aliases: list[str]
    job_id: UUID | None
    base: str


def list_idempotent_responses(
    session: Session, *, after: IdempotentResponseKey | None, created_since: float
) -> list[tuple[IdempotentResponseKey, JsonObject]]:
    """Return up to `PAGE_SIZE` stored responses, by key, that were created since a Unix time."""
    columns = (IdempotencyKey.api_key_id, IdempotencyKey.route, IdempotencyKey.key)
    statement = select(*columns, IdempotencyKey.response_body).order_by(*columns)
    statement = statement.where(IdempotencyKey.created_at >= created_since)
    if after is not None:
        statement = statement.where(_primary_key > after)
    rows = session.execute(statement.limit(PAGE_SIZE))
    return [(IdempotentResponseKey(row[0], row[1], row[2]), row.response_body) for row in rows]


def delete_idempotent_responses(session: Session, keys: Iterable[IdempotentResponseKey]) -> int:
    """Delete stored responses. Return how many there still were."""
    deleted = 0
    for each in sorted(keys):  # in one order: no deadlock
        statement = delete(IdempotencyKey).where(_primary_key == each).returning(IdempotencyKey.key)
        deleted += len(session.scalars(statement, execution_options=_NO_SYNC).all())
    return deleted


def list_stored_datasets(session: Session) -> Sequence[Dataset]:
    """Return all datasets whose file is stored, the newest first."""
    statement = select(Dataset).where(Dataset.deleted_at.is_(None))
    return session.scalars(statement.order_by(Dataset.id.desc())).all()


def list_job_dataset_pairs(
    session: Session, dataset_ids: Collection[UUID]
) -> list[tuple[UUID, UUID]]:
    """Return the jobs and prediction runs that read one of these datasets: (job, dataset)."""
    if not dataset_ids:
        return []
    ids = cast(Job.dataset_ids, String)
    statement = select(Job.id, Job.dataset_ids).where(
        or_(*(ids.contains(str(each)) for each in dataset_ids))
    )
    wanted = {str(each): each for each in dataset_ids}
    return [
        (job_id, wanted[read])
        for job_id, sources in session.execute(statement.order_by(Job.id))
        for read in sources.values()
        if read in wanted
    ]


def list_readers_of_deleted_datasets(session: Session) -> list[ReaderOfDeletedDataset]:
    """Return the jobs and prediction runs whose stored files have texts of deleted datasets."""
    deleted = select(Dataset.id, Dataset.name, Dataset.version)
    refs = {
        str(row.id): f"{row.name}:{row.version}"
        for row in session.execute(deleted.where(Dataset.deleted_at.is_not(None)))
    }
    jobs = select(Job.id, Job.kind, Job.dataset_ids).where(
        Job.artifact_id.is_not(None),
        Job.kind != JobKind.EMBEDDING,  # has vectors only
    )
    return [
        ReaderOfDeletedDataset(job_id, JobKind(kind), refs[read])
        for job_id, kind, sources in session.execute(jobs.order_by(Job.id))
        for read in dict.fromkeys(sources.values())
        if read in refs
    ]


def list_version_origins(session: Session) -> list[VersionOrigin]:
    """Return all versions of all models, the oldest first."""
    rows = session.execute(
        select(
            ModelVersion.id,
            RegisteredModel.name,
            ModelVersion.number,
            ModelVersion.job_id,
            ModelVersion.base,
        )
        .join(RegisteredModel, RegisteredModel.id == ModelVersion.model_id)
        .order_by(ModelVersion.id)
    ).all()
    aliases: dict[UUID, list[str]] = {}
    for version_id, alias in session.execute(
        select(ModelAlias.version_id, ModelAlias.alias).order_by(ModelAlias.alias)
    ):
        aliases.setdefault(version_id, []).append(alias)
    return [
        VersionOrigin(f"{row.name}:{row.number}", aliases.get(row.id, []), row.job_id, row.base)
        for row in rows
    ]
