"""Queries of erasing a text: stored responses, datasets to search, and what was made from them."""

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import String, cast, delete, or_, select, tuple_
from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.datasets.tables import Dataset
from app.idempotency.tables import IdempotencyKey
from app.queue.tables import Job
from app.registry.tables import ModelAlias, ModelVersion, RegisteredModel

_PAGE_SIZE = 100  # responses of one query, which may be large
MAX_JOBS = 10_000


class VersionOrigin(NamedTuple):
    """A version and what it was made from."""

    ref: str
    aliases: list[str]
    job_id: UUID | None
    base: str


def delete_idempotent_responses_with_text(
    session: Session, holds_text: Callable[[JsonObject], bool]
) -> int:
    """Delete the stored responses whose body has the text. Return how many."""
    key = tuple_(IdempotencyKey.api_key_id, IdempotencyKey.route, IdempotencyKey.key)
    columns = (IdempotencyKey.api_key_id, IdempotencyKey.route, IdempotencyKey.key)
    found: list[tuple[UUID, str, str]] = []
    last: tuple[UUID, str, str] | None = None
    while True:
        statement = select(*columns, IdempotencyKey.response_body).order_by(*columns)
        if last is not None:
            statement = statement.where(key > last)
        page = session.execute(statement.limit(_PAGE_SIZE)).all()
        found += [(row[0], row[1], row[2]) for row in page if holds_text(row.response_body)]
        if len(page) < _PAGE_SIZE:
            break
        last = (page[-1][0], page[-1][1], page[-1][2])
    for each in found:
        session.execute(
            delete(IdempotencyKey).where(key == each),
            execution_options={"synchronize_session": False},
        )
    return len(found)


def list_datasets(session: Session) -> Sequence[Dataset]:
    """Return all datasets whose file is stored, the newest first."""
    statement = select(Dataset).where(Dataset.deleted_at.is_(None))
    return session.scalars(statement.order_by(Dataset.id.desc())).all()


def list_jobs_reading_datasets(
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
        for job_id, sources in session.execute(statement.order_by(Job.id).limit(MAX_JOBS))
        for read in sources.values()
        if read in wanted
    ]


def list_versions(session: Session) -> list[VersionOrigin]:
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
