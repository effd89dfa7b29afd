"""Queries on the files and jobs of the Mistral API."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, false, func, or_, select
from sqlalchemy.orm import Session

from app.datasets.tables import Dataset
from app.fine_tuning_apis.errors import training_file_error_codes
from app.fine_tuning_apis.repository import (
    DEFERRED,
    SUMMARY_COLUMNS,
    TrainingSummaryNumbers,
    add_job_events,
)
from app.mistral.tables import MistralJobRequest
from app.queue.enums import JobState
from app.queue.events import EventContent
from app.queue.tables import Job
from app.registry.tables import ModelVersion, RegisteredModel


class MistralJobWithRequest(NamedTuple):
    """A job, and what the client asked for."""

    job: Job
    asked: MistralJobRequest
    measured: TrainingSummaryNumbers = TrainingSummaryNumbers()


class RegisteredJobModel(NamedTuple):
    """The registered model of a job."""

    row: MistralJobWithRequest
    created_at: float
    refs: tuple[str, ...]  # such as `spam:3`


@dataclass(frozen=True)
class MistralJobFilter:
    """Which jobs a list has. None: any. Times are in seconds since 1970."""

    model: str | None = None
    suffix: str | None = None
    status: str | None = None
    created_after: float | None = None
    created_before: float | None = None
    created_by: UUID | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions on `Job` and `MistralJobRequest`."""
        asked = MistralJobRequest.request
        conditions: list[ColumnElement[bool]] = []
        if self.model is not None:
            trained = Job.base == self.model
            conditions.append(or_(asked["model"].as_string() == self.model, trained))
        if self.suffix is not None:
            conditions.append(asked["suffix"].as_string() == self.suffix)
        if self.status is not None:
            conditions.append(conditions_by_status().get(self.status, false()))
        if self.created_after is not None:
            conditions.append(Job.created_at > self.created_after)
        if self.created_before is not None:
            conditions.append(Job.created_at < self.created_before)
        if self.created_by is not None:
            conditions.append(Job.created_by == self.created_by)
        return conditions


def conditions_by_status() -> dict[str, ColumnElement[bool]]:
    """Return the condition of each status. A job meets exactly one of them."""
    unstarted = and_(
        Job.state == JobState.QUEUED,
        Job.pause_requested_at.is_not(None),
        Job.attempt == 0,
        MistralJobRequest.request["auto_start"].as_boolean().is_(False),
    )
    invalid = and_(Job.state == JobState.FAILED, Job.error_code.in_(training_file_error_codes()))
    running = Job.state == JobState.RUNNING
    return {
        "VALIDATED": unstarted,
        "QUEUED": and_(Job.state == JobState.QUEUED, ~unstarted),
        "RUNNING": and_(running, Job.cancel_requested_at.is_(None)),
        "CANCELLATION_REQUESTED": and_(running, Job.cancel_requested_at.is_not(None)),
        "SUCCESS": Job.state == JobState.SUCCEEDED,
        "FAILED_VALIDATION": invalid,
        "FAILED": and_(Job.state == JobState.FAILED, ~invalid),
        "CANCELLED": Job.state == JobState.CANCELLED,
    }


_JOBS: Select[Any] = (
    select(Job, MistralJobRequest, *SUMMARY_COLUMNS)
    .join(MistralJobRequest, MistralJobRequest.job_id == Job.id)
    .options(*DEFERRED)
)


def _load(session: Session, statement: Select[Any]) -> list[MistralJobWithRequest]:
    rows = session.execute(statement)
    return [
        MistralJobWithRequest(job, asked, TrainingSummaryNumbers(*numbers))
        for job, asked, *numbers in rows
    ]


def list_labeled_datasets(
    session: Session, *, search: str | None, offset: int, limit: int
) -> Sequence[Dataset]:
    """Return datasets with labels, the newest first. `search` is a part of the file name."""
    statement = select(Dataset).where(*_with_labels(search)).order_by(Dataset.id.desc())
    return session.scalars(statement.offset(offset).limit(limit)).all()


def count_labeled_datasets(session: Session, *, search: str | None) -> int:
    """Return the number of datasets that `list_labeled_datasets` pages through."""
    return session.scalars(
        select(func.count()).select_from(Dataset).where(*_with_labels(search))
    ).one()


def _with_labels(search: str | None) -> list[ColumnElement[bool]]:
    labeled: list[ColumnElement[bool]] = [
        Dataset.deleted_at.is_(None),
        Dataset.label_column.is_not(None),
    ]
    if search is not None:
        labeled.append(Dataset.filename.icontains(search, autoescape=True))
    return labeled


def add_job_request_and_events(
    session: Session,
    job_id: UUID,
    *,
    request: Mapping[str, object],
    events: Sequence[EventContent],
) -> MistralJobWithRequest:
    """Store what the client asked for, and events about a job that was just created."""
    job = add_job_events(session, job_id, events)
    asked = MistralJobRequest(job_id=job_id, request=dict(request), archived=False)
    session.add(asked)
    session.flush()
    return MistralJobWithRequest(job, asked)


def find_job(session: Session, job_id: UUID) -> MistralJobWithRequest | None:
    """Return a job if it was created through this API."""
    return next(iter(_load(session, _JOBS.where(Job.id == job_id))), None)


def list_jobs(
    session: Session, wanted: MistralJobFilter, *, offset: int, limit: int
) -> list[MistralJobWithRequest]:
    """Return jobs, the newest first."""
    statement = _JOBS.where(*wanted.conditions()).order_by(Job.id.desc())
    return _load(session, statement.offset(offset).limit(limit))


def count_jobs(session: Session, wanted: MistralJobFilter) -> int:
    """Return the number of jobs that `list_jobs` pages through."""
    statement = (
        select(func.count())
        .select_from(MistralJobRequest)
        .join(Job, MistralJobRequest.job_id == Job.id)
    )
    return session.scalars(statement.where(*wanted.conditions())).one()


def list_job_models(session: Session, job_id: UUID | None = None) -> list[RegisteredJobModel]:
    """Return the registered models of jobs, the newest job first; or that of one job."""
    statement = (
        select(
            Job,
            MistralJobRequest,
            ModelVersion.created_at,
            RegisteredModel.name,
            ModelVersion.number,
        )
        .join(MistralJobRequest, MistralJobRequest.job_id == Job.id)
        .join(ModelVersion, ModelVersion.job_id == Job.id)
        .join(RegisteredModel, RegisteredModel.id == ModelVersion.model_id)
        .options(*DEFERRED)
        .order_by(Job.id.desc(), ModelVersion.created_at, ModelVersion.id)
    )
    if job_id is not None:
        statement = statement.where(Job.id == job_id)
    models = []
    for _, rows in groupby(session.execute(statement), key=lambda row: row[0].id):
        versions = list(rows)
        job, asked, created_at, *_ = versions[0]
        refs = tuple(f"{name}:{number}" for *_, name, number in versions)
        models.append(RegisteredJobModel(MistralJobWithRequest(job, asked), created_at, refs))
    return models
