"""What callers do with jobs: plan, submit, update, cancel, delete."""

from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app import logging
from app.database.clock import now
from app.database.locks import take_turns
from app.idempotency import service as idempotency
from app.idempotency.service import Call
from app.jobs import base_models, data_sources, repository
from app.jobs.base_models import Base
from app.jobs.errors import TooManyJobs
from app.jobs.resolve import Draft, Drafter, digest
from app.jobs.schemas import JobCreate, JobListItem, JobUpdate, JobView, Plan, Queued
from app.queue import checkpoints
from app.queue.dispatch import JobQueue
from app.queue.states import Lane
from app.queue.tables import Checkpoint, Job
from app.settings import Settings
from app.storage import service as artifacts
from app.storage.store import Store

Shown = TypeVar("Shown", bound=Queued)

log = structlog.get_logger(__name__)


def resolve(session: Session, *, body: JobCreate, base: Base | None, settings: Settings) -> Draft:
    """The job that a description means, before any write: that takes longer than to store it.

    `base` was looked up by `bases.find`. Raises what `Drafter.draft` raises.
    """
    return Drafter(session, settings).draft(body.spec, base)


def list_items(session: Session, jobs: Sequence[Job]) -> list[JobListItem]:
    """Jobs as lists show them."""
    ids = [job.id for job in jobs]
    places, found = repository.positions(session, ids), repository.figures(session, ids)
    return [JobListItem.listed(job, places.get(job.id), found[job.id]) for job in jobs]


def plan(session: Session, *, body: JobCreate, draft: Draft) -> Plan:
    """What `submit` would do."""
    return Plan(
        parameters=draft.parameters,
        estimated_seconds=draft.cost.seconds,
        queue_position=repository.next_position(session, lane=draft.lane, priority=body.priority),
        spec=draft.spec.model_dump(mode="json"),
    )


def submit(
    session: Session,
    *,
    body: JobCreate,
    draft: Draft,
    settings: Settings,
    queue: JobQueue,
    call: Call,
) -> JobView:
    """Store a job, commit, then tell the workers.

    `draft` is what `resolve` made. Raises `BaseNotFound` and `DataNotFound` when base or data were
    deleted since, and what `idempotency.begin` and `enqueue` raise.
    """
    idempotency.begin(session, call)
    base_models.check_there(session, draft.base)
    data_sources.hold(session, draft.dataset_ids)
    job = Job(
        **draft.columns(),
        name=body.name,
        tags=body.tags or None,
        notes=body.notes or None,
        labels=body.metadata,
        priority=body.priority,
        register_as=body.register_as,
        time_limit_seconds=body.time_limit_seconds,
    )
    view = enqueue(session, job, view_of=JobView.of, settings=settings, queue=queue, call=call)
    log.info("job submitted", job_id=str(job.id), lane=draft.lane)
    return view


def enqueue(  # noqa: PLR0913 - what a submit touches
    session: Session,
    job: Job,
    *,
    view_of: Callable[[Job, int | None], Shown],
    settings: Settings,
    queue: JobQueue,
    call: Call,
    start: Checkpoint | None = None,
) -> Shown:
    """Store what is to be run, keep the answer, commit, then tell the workers.

    With `start` its curves begin with those that lead there. Raises `TooManyJobs`.
    """
    take_turns(session, f"jobs of {call.caller_id}")  # or two at once would both find room
    if repository.unfinished(session, call.caller_id) >= settings.key_jobs:
        raise TooManyJobs(limit=settings.key_jobs)
    place = repository.next_position(session, lane=Lane(job.lane), priority=job.priority)
    job.stream_seq = start.seq if start else 0
    add(session, job, created_by=call.caller_id)
    if start is not None:
        checkpoints.inherit(session, job, start)
    view = view_of(job, place)
    idempotency.keep(session, call, status=202, body=view, location=view.location)
    session.commit()
    queue.hint(job.id, lane=Lane(job.lane))
    return view


def add(session: Session, job: Job, *, created_by: UUID) -> None:
    """Put a job into the queue. The caller commits, and hints then: a lost hint is repeated."""
    job.created_by, job.spec_sha256 = created_by, digest(job.spec)
    job.dispatched_at = now()
    repository.add(session, job)


def update(session: Session, *, job_id: UUID, body: JobUpdate) -> JobView:
    """Set the tags and notes that the body names, and commit. Raises `JobNotFound`."""
    sent = body.model_dump(exclude_unset=True)
    changes = {name: value or None for name, value in sent.items()}
    job = repository.update_columns(session, job_id, changes)
    view = JobView.of(job, repository.positions(session, [job_id]).get(job_id))
    session.commit()
    logging.note("job_updated", job=str(job_id), fields=sorted(changes))
    return view


def cancel(session: Session, *, job_id: UUID) -> Job:
    """A queued job is cancelled, a running one asked to stop, an ended one stays as it is.

    Raises `JobNotFound`.
    """
    repository.request_cancel(session, job_id)
    job = repository.get(session, job_id)
    session.commit()
    return job


def delete(session: Session, *, job_id: UUID, store: Store) -> None:
    """Forget a job that has ended, and what it made unless a model version needs it.

    Raises `JobNotFound`, `JobNotFinished`.
    """
    artifacts.forget_unused(session, store, repository.remove(session, job_id))
