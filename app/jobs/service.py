"""Operations on jobs: resolve, plan, create, update, cancel, delete."""

from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app import logging
from app.database.clock import now
from app.database.engines import acquire_transaction_lock
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentCall
from app.jobs import base_models, data_sources, repository
from app.jobs.base_models import ResolvedBase
from app.jobs.errors import TooManyJobs
from app.jobs.resolve import JobResolver, ResolvedJob, sha256_of_json
from app.jobs.schemas import JobCreate, JobListItem, JobPlan, JobUpdate, JobView, QueuedResource
from app.queue import checkpoints
from app.queue.dispatch import JobQueue
from app.queue.states import DeviceClass
from app.queue.tables import Checkpoint, Job
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.store import Store

ViewT = TypeVar("ViewT", bound=QueuedResource)

log = structlog.get_logger(__name__)


def resolve(
    session: Session, *, body: JobCreate, base: ResolvedBase | None, settings: Settings
) -> ResolvedJob:
    """Resolve a description before any write, because resolving takes longer than storing.

    `base` was looked up by `base_models.resolve_base`. Raises what `JobResolver.resolve` raises.
    """
    return JobResolver(session, settings).resolve(body.spec, base)


def list_items(session: Session, jobs: Sequence[Job]) -> list[JobListItem]:
    """Return the list items of jobs."""
    ids = [job.id for job in jobs]
    positions = repository.queue_positions(session, ids)
    summaries = repository.load_summaries(session, ids)
    return [
        JobListItem.from_listed_job(job, positions.get(job.id), summaries[job.id]) for job in jobs
    ]


def plan(session: Session, *, body: JobCreate, resolved: ResolvedJob) -> JobPlan:
    """Return what `create` would store."""
    return JobPlan(
        parameters=resolved.parameters,
        estimated_seconds=resolved.cost.seconds,
        queue_position=repository.next_queue_position(
            session, device_class=resolved.device_class, priority=body.priority
        ),
        spec=resolved.spec.model_dump(mode="json"),
    )


def create(
    session: Session,
    *,
    body: JobCreate,
    resolved: ResolvedJob,
    settings: Settings,
    queue: JobQueue,
    call: IdempotentCall,
) -> JobView:
    """Store a job, commit, then notify the workers.

    `resolved` comes from `resolve`. Raises `BaseNotFound` and `DataNotFound` when base or data were
    deleted since then, and what `idempotency.reserve` and `enqueue` raise.
    """
    idempotency.reserve(session, call)
    base_models.check_still_exists(session, resolved.base)
    data_sources.lock_uploads(session, resolved.dataset_ids)
    job = Job(
        **resolved.columns(),
        name=body.name,
        tags=body.tags or None,
        notes=body.notes or None,
        labels=body.metadata,
        priority=body.priority,
        register_as=body.register_as,
        time_limit_seconds=body.time_limit_seconds,
    )
    view = enqueue(
        session, job, view_of=JobView.from_job, settings=settings, queue=queue, call=call
    )
    log.info("created job", job_id=str(job.id), device_class=resolved.device_class)
    return view


def enqueue(  # noqa: PLR0913 - what creating a job touches
    session: Session,
    job: Job,
    *,
    view_of: Callable[[Job, int | None], ViewT],
    settings: Settings,
    queue: JobQueue,
    call: IdempotentCall,
    start: Checkpoint | None = None,
) -> ViewT:
    """Store a job and the response to its request, commit, then notify the workers.

    With the checkpoint `start`, the job inherits the curves up to there. Raises `TooManyJobs`.
    """
    acquire_transaction_lock(
        session, f"jobs of {call.caller_id}"
    )  # otherwise two concurrent requests could both pass the check
    if repository.count_active(session, call.caller_id) >= settings.key_jobs:
        raise TooManyJobs(limit=settings.key_jobs)
    position = repository.next_queue_position(
        session, device_class=DeviceClass(job.lane), priority=job.priority
    )
    job.stream_seq = start.seq if start else 0
    insert(session, job, created_by=call.caller_id)
    if start is not None:
        checkpoints.inherit_curves(session, job, start)
    view = view_of(job, position)
    idempotency.save_response(session, call, status=202, body=view, location=view.location)
    session.commit()
    queue.send(job.id, device_class=DeviceClass(job.lane))
    return view


def insert(session: Session, job: Job, *, created_by: UUID) -> None:
    """Put a job into the queue. The caller commits, and then sends the message to the workers."""
    job.created_by, job.spec_sha256 = created_by, sha256_of_json(job.spec)
    job.dispatched_at = now()
    repository.add(session, job)


def update(session: Session, *, job_id: UUID, body: JobUpdate) -> JobView:
    """Update the tags and notes that the body contains, and commit. Raises `JobNotFound`."""
    fields = body.model_dump(exclude_unset=True)
    changes = {name: value or None for name, value in fields.items()}
    job = repository.update_columns(session, job_id, changes)
    view = JobView.from_job(job, repository.queue_positions(session, [job_id]).get(job_id))
    session.commit()
    logging.audit("job_updated", job=str(job_id), fields=sorted(changes))
    return view


def cancel(session: Session, *, job_id: UUID) -> Job:
    """Cancel a queued job, or request that a running one stops. A finished job stays as it is.

    Raises `JobNotFound`.
    """
    repository.request_cancel(session, job_id)
    job = repository.get(session, job_id)
    session.commit()
    return job


def delete(session: Session, *, job_id: UUID, store: Store) -> None:
    """Delete a finished job, and its artifact unless a model version uses it.

    Raises `JobNotFound`, `JobNotFinished`.
    """
    artifacts.delete_unused_artifacts(session, store, repository.delete_job(session, job_id))
