"""Queries on the files and fine-tuning jobs of the OpenAI API."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, String, cast, exists, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.database.base import now
from app.datasets.tables import Dataset
from app.fine_tuning_apis.repository import (
    DEFERRED,
    SUMMARY_COLUMNS,
    TrainingSummaryNumbers,
    add_job_events,
)
from app.openai.tables import OpenAIJobRequest
from app.queue.enums import JobState
from app.queue.events import EventContent
from app.queue.leases import running_seconds_expression
from app.queue.tables import Job
from app.registry.tables import ModelVersion

Order = Literal["asc", "desc"]


class OpenAIJobWithRequest(NamedTuple):
    """A job, and what the client asked for."""

    job: Job
    asked: OpenAIJobRequest
    measured: TrainingSummaryNumbers = TrainingSummaryNumbers()
    running_seconds: float = 0.0  # of all attempts until now; only of a running job


_JOBS: Select[Any] = (
    select(Job, OpenAIJobRequest, running_seconds_expression(now()), *SUMMARY_COLUMNS)
    .join(OpenAIJobRequest, OpenAIJobRequest.job_id == Job.id)
    .options(*DEFERRED)
)


def _load(session: Session, statement: Select[Any]) -> list[OpenAIJobWithRequest]:
    rows = session.execute(statement)
    return [
        OpenAIJobWithRequest(job, asked, TrainingSummaryNumbers(*numbers), seconds or 0.0)
        for job, asked, seconds, *numbers in rows
    ]


def list_labeled_datasets(
    session: Session, *, after: UUID | None, limit: int, order: Order
) -> Sequence[Dataset]:
    """Return datasets with labels, by their ids."""
    statement = select(Dataset).where(
        Dataset.deleted_at.is_(None),
        Dataset.label_column.is_not(None),
        _beyond(Dataset.id, after, order),
    )
    ids = Dataset.id.asc() if order == "asc" else Dataset.id.desc()
    return session.scalars(statement.order_by(ids).limit(limit)).all()


def list_succeeded_jobs(
    session: Session, *, after: UUID | None, limit: int, order: Order
) -> list[OpenAIJobWithRequest]:
    """Return the jobs that have a file of results, by their ids."""
    succeeded = (Job.state == JobState.SUCCEEDED, _beyond(Job.id, after, order))
    ids = Job.id.asc() if order == "asc" else Job.id.desc()
    return _load(session, _JOBS.where(*succeeded).order_by(ids).limit(limit))


def _beyond(
    column: InstrumentedAttribute[UUID], after: UUID | None, order: Order
) -> ColumnElement[bool]:
    if after is None:
        return literal(True)
    return column > after if order == "asc" else column < after


def add_job_request_and_events(
    session: Session, job_id: UUID, *, request: Mapping[str, object], events: Sequence[EventContent]
) -> OpenAIJobWithRequest:
    """Store what the client asked for, and events about a job that was just created."""
    job = add_job_events(session, job_id, events)
    asked = OpenAIJobRequest(job_id=job_id, request=dict(request))
    session.add(asked)
    session.flush()
    return OpenAIJobWithRequest(job, asked)


def find_job(session: Session, job_id: UUID) -> OpenAIJobWithRequest | None:
    """Return a job if it was created through this API."""
    return next(iter(_load(session, _JOBS.where(Job.id == job_id))), None)


def list_jobs(
    session: Session,
    *,
    after: UUID | None,
    limit: int,
    metadata: Mapping[str, str] | None,
) -> list[OpenAIJobWithRequest]:
    """Return the newest jobs that have all of these pairs; without any metadata if it is None."""
    statement = _JOBS.where(_beyond(Job.id, after, "desc"))
    if metadata is None:
        statement = statement.where(cast(Job.user_metadata, String) == "{}")
    for key, value in (metadata or {}).items():
        statement = statement.where(_has_pair(session, key, value))
    return _load(session, statement.order_by(Job.id.desc()).limit(limit))


def list_jobs_with_models(session: Session) -> list[tuple[OpenAIJobWithRequest, float]]:
    """Return the jobs whose models are registered, with the time of it, the newest job first."""
    rows = session.execute(
        select(Job, OpenAIJobRequest, func.min(ModelVersion.created_at))
        .join(OpenAIJobRequest, OpenAIJobRequest.job_id == Job.id)
        .join(ModelVersion, ModelVersion.job_id == Job.id)
        .options(*DEFERRED)
        .group_by(Job.id, OpenAIJobRequest.job_id)
        .order_by(Job.id.desc())
    )
    return [(OpenAIJobWithRequest(job, asked), created_at) for job, asked, created_at in rows]


def _has_pair(session: Session, key: str, value: str) -> ColumnElement[bool]:
    """Return whether the metadata of a job has a pair. A JSON path could not name every key."""
    sqlite = session.get_bind().dialect.name == "sqlite"
    each = func.json_each if sqlite else func.jsonb_each_text
    pairs = each(Job.user_metadata).table_valued("key", "value")
    return exists(
        select(literal(1)).select_from(pairs).where(pairs.c.key == key, pairs.c.value == value)
    )
