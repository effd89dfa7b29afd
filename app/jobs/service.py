"""Operations on jobs: plan, create, update, cancel, pause, resume, retry, delete."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app import logging
from app.database.base import now
from app.database.engines import acquire_transaction_lock, call_after_commit
from app.errors import Conflict
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.jobs import data_sources, estimate, pretrained_bases, repository
from app.jobs.errors import (
    AlreadyRetried,
    CheckpointVersionMismatch,
    JobCancelling,
    JobFinished,
    JobNotFinished,
    JobSucceeded,
    NoCheckpoint,
    PredictionRunNotPausable,
    PredictionRunNotRetryable,
    TooManyJobs,
    TrialNotDeletable,
    TrialNotPausable,
    TrialNotRetryable,
)
from app.jobs.repository import FINAL_STATES
from app.jobs.resolve import ResolvedJob
from app.jobs.schemas import (
    CrossValidationPlan,
    JobCreate,
    JobPlan,
    JobUpdate,
    JobView,
    LocatedResource,
)
from app.jobs.views import job_view
from app.queue import checkpoints
from app.queue.dispatch import JobTask, WorkerNotifier, message_priority
from app.queue.enums import DeviceClass, JobKind, JobState
from app.queue.tables import Checkpoint, Job
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.store import Store
from lora_core.specs.method import SKLEARN_METHODS, AutoSpec, MethodSpec
from lora_core.training_version import TRAINING_VERSION

_ViewT = TypeVar("_ViewT", bound=LocatedResource)

log = structlog.get_logger(__name__)


def plan_job(session: Session, *, body: JobCreate, resolved: ResolvedJob) -> JobPlan:
    """Return what `create_job` would store."""
    return JobPlan(
        parameters=resolved.parameters,
        estimated_seconds=resolved.cost.seconds,
        cross_validation=_cross_validation_plan(resolved.spec.method),
        queue_position=repository.next_queue_position(
            session, device_class=resolved.device_class, priority=body.priority
        ),
        spec=resolved.spec.model_dump(mode="json"),
    )


def _cross_validation_plan(method: MethodSpec) -> CrossValidationPlan | None:
    if not isinstance(method, AutoSpec):
        return None
    candidates = method.candidates or ()  # a resolved job has them
    return CrossValidationPlan(
        candidates=len(candidates), fits=sum(each.n_fits for each in candidates)
    )


def create_job(
    session: Session,
    *,
    body: JobCreate,
    resolved: ResolvedJob,
    settings: Settings,
    notifier: WorkerNotifier,
    call: IdempotentRequest,
) -> JobView:
    """Store a job, and notify the workers after the commit.

    `resolved` comes from `JobResolver.resolve`. Raises `DataNotFound` when the data were deleted
    since then, and what `idempotency.reserve` and `enqueue_and_save_response` raise.
    """
    idempotency.reserve(session, call)
    data_sources.lock_datasets_against_deletion(session, resolved.dataset_ids)
    job = Job(
        **resolved.columns(),
        name=body.name,
        tags=body.tags or None,
        notes=body.notes or None,
        user_metadata=body.metadata,
        priority=body.priority,
        register_as=body.register_as,
        time_limit_seconds=body.time_limit_seconds,
    )
    view = enqueue_and_save_response(
        session, job, view_of=job_view, settings=settings, notifier=notifier, call=call
    )
    created = {"job_id": str(job.id), "device_class": resolved.device_class}
    call_after_commit(session, partial(log.info, "created job", **created))
    return view


def enqueue_and_save_response(  # noqa: PLR0913 - what creating a job touches
    session: Session,
    job: Job,
    *,
    view_of: Callable[[Job, int | None], _ViewT],
    settings: Settings,
    notifier: WorkerNotifier,
    call: IdempotentRequest,
    start: Checkpoint | None = None,
) -> _ViewT:
    """Store a job and the response to its request, and notify the workers after the commit.

    With the checkpoint `start`, the job inherits the curves up to there. Raises `TooManyJobs`, and
    `BaseNotFound` if the version that the job reads was deleted.
    """
    acquire_transaction_lock(
        session, f"jobs of {call.caller_id}"
    )  # otherwise two concurrent requests could both pass the check
    if repository.count_active_jobs_of_caller(session, call.caller_id) >= settings.max_jobs_per_key:
        raise TooManyJobs(limit=settings.max_jobs_per_key)
    position = repository.next_queue_position(
        session, device_class=DeviceClass(job.device_class), priority=job.priority
    )
    if start is not None:
        job.stream_seq = start.seq
    insert_and_enqueue(session, job, created_by=call.caller_id, notifier=notifier)
    if start is not None:
        checkpoints.inherit_metric_points(session, job, start)
    view = view_of(job, position)
    idempotency.save_response(session, call, status=202, body=view, location=view.location)
    return view


def insert_and_enqueue(
    session: Session, job: Job, *, created_by: UUID, notifier: WorkerNotifier
) -> None:
    """Put a job into the queue, and notify the workers after the commit.

    Raises `BaseNotFound` if the version that the job reads was deleted.
    """
    pretrained_bases.lock_base_against_deletion(session, job.base)
    job.created_by, job.dispatched_at = created_by, now()
    repository.add_job_with_first_event(session, job)
    task = JobTask(job.id, job.device_class, message_priority(job.priority, attempt=0))
    call_after_commit(session, partial(notifier.send, task))


def update_job(session: Session, *, job_id: UUID, body: JobUpdate) -> JobView:
    """Update the tags and notes that the body contains. Raises `JobNotFound`."""
    fields = body.model_dump(exclude_unset=True)
    changes = {name: value or None for name, value in fields.items()}
    job = repository.update_job(session, job_id, changes)
    view = job_view(job, repository.queue_positions(session, [job_id]).get(job_id))
    audit = partial(
        logging.write_audit_line, "job_updated", job=str(job_id), fields=sorted(changes)
    )
    call_after_commit(session, audit)
    return view


def cancel_job(session: Session, *, job_id: UUID) -> Job:
    """Cancel a queued job, or request that a running one stops. A finished job stays as it is.

    Raises `JobNotFound`.
    """
    repository.request_cancel(session, job_id)
    return repository.get_training_job(session, job_id)


def pause_job(session: Session, *, job_id: UUID) -> Job:
    """Pause a queued job, or request that a running one saves a checkpoint and stops.

    A paused job keeps its id, and no worker claims it until it is resumed. A second pause changes
    nothing.

    Raises `JobNotFound`, `PredictionRunNotPausable`, `TrialNotPausable`, `JobFinished`,
    `JobCancelling`.
    """
    repository.request_pause(session, job_id)  # an error below rolls it back
    return _get_pausable_job(session, job_id)


def resume_job(session: Session, *, job_id: UUID, notifier: WorkerNotifier) -> Job:
    """Put a paused job back into the queue, and notify the workers after the commit.

    It continues from its last checkpoint. On a job that is not paused this changes nothing; a pause
    that was only requested is withdrawn. Raises what `pause_job` raises.
    """
    resumed = repository.request_resume(session, job_id)
    job = _get_pausable_job(session, job_id)
    if resumed:
        priority = message_priority(job.priority, attempt=job.attempt)
        task = JobTask(job.id, job.device_class, priority)
        call_after_commit(session, partial(notifier.send, task))
    return job


def _get_pausable_job(session: Session, job_id: UUID) -> Job:
    job = _get_training_job(session, job_id, refusal=PredictionRunNotPausable)
    if job.sweep_id is not None:
        raise TrialNotPausable(job_id=job_id, sweep_id=job.sweep_id)
    if job.state in FINAL_STATES:
        raise JobFinished(job_id=job_id, state=job.state)
    if job.cancel_requested_at is not None:
        raise JobCancelling(job_id=job_id)
    return job


def delete_job(session: Session, *, job_id: UUID, store: Store) -> None:
    """Delete a finished job, and its artifact unless a model version uses it.

    Raises `JobNotFound`, `TrialNotDeletable`, `JobContinued`, `JobNotFinished`.
    """
    sweep_id = repository.find_sweep_of_job(session, job_id, for_update=True)
    if sweep_id is not None:
        raise TrialNotDeletable(job_id=job_id, sweep_id=sweep_id)
    repository.raise_if_continued(session, Job.id == job_id)
    artifacts.delete_unused_artifacts(
        session, store, repository.delete_finished_training_job(session, job_id)
    )


# -- Retry: a new job that continues a failed or cancelled one from its last checkpoint -----------


# A job has no checkpoint if its method is fitted in one step, or if `auto` has not selected a
# method yet. Its retry starts from the beginning.

_RETRIED_COLUMNS = (
    "name",
    "tags",
    "notes",
    "user_metadata",
    "method",
    "device_class",
    "priority",
    "spec",
    "spec_version",
    "dataset_ids",
    "base",
    "register_as",
    "promote_to",
    "plan",
    "trial_sha256",
    "time_limit_seconds",
)


def create_retry_job(
    session: Session,
    *,
    job_id: UUID,
    settings: Settings,
    notifier: WorkerNotifier,
    call: IdempotentRequest,
) -> JobView:
    """Store a job that continues this one, and notify the workers after the commit.

    It has the spec as resolved by the first attempt, and the curves up to the checkpoint. Its
    result is bit-for-bit identical to that of an uninterrupted run. The old job stays as it is.

    Raises `JobNotFound`, `PredictionRunNotRetryable`, what `check_retryable_and_find_checkpoint`
    raises, `AlreadyRetried`, `DataNotFound`, and what `idempotency.reserve` and
    `enqueue_and_save_response` raise.
    """
    idempotency.reserve(session, call)
    old = _get_training_job(session, job_id, refusal=PredictionRunNotRetryable)
    start = check_retryable_and_find_checkpoint(session, old)
    original = repository.find_original_job(session, old)
    acquire_transaction_lock(session, f"retries of {original.id}")
    if (other := repository.find_active_retry(session, original)) is not None:
        raise AlreadyRetried(job_id=job_id, other=other)
    data_sources.lock_datasets_against_deletion(session, old.dataset_ids)
    job = Job(**{column: getattr(old, column) for column in _RETRIED_COLUMNS})
    job.continues = start.job_id if start else job_id
    if start is not None and (total := old.total_steps or original.total_steps):
        whole = original.plan["estimated_seconds"]
        seconds = estimate.remaining_seconds(whole, min(1.0, start.step / total))
        if old.method == "auto":  # whose estimate includes the comparison, which is not repeated
            seconds = _estimate_from_speed(session, start, total) or seconds
        job.plan = {**old.plan, "estimated_seconds": seconds}
    view = enqueue_and_save_response(
        session,
        job,
        view_of=job_view,
        settings=settings,
        notifier=notifier,
        call=call,
        start=start,
    )
    repository.copy_api_requests(session, of=job_id, to=job.id)
    retried = {"job_id": str(job.id), "of": str(job_id), "step": start.step if start else 0}
    call_after_commit(session, partial(log.info, "retried job", **retried))
    return view


def _estimate_from_speed(session: Session, start: Checkpoint, total: int) -> int | None:
    """Return the estimate for the steps after `start` at the speed of those before it."""
    began = repository.find_start_of_training(session, start)
    steps = start.step - began.data.get("step", 0) if began else 0
    if began is None or steps <= 0:
        return None
    seconds_per_step = (start.at - began.at) / steps
    return round(estimate.STARTUP_SECONDS + seconds_per_step * max(0, total - start.step))


def check_retryable_and_find_checkpoint(session: Session, job: Job) -> Checkpoint | None:
    """Return the checkpoint that a retry starts from: the job's own, or the one it started from.

    None: it starts from the beginning, since no checkpoint is expected.

    Raises `JobNotFinished`, `JobSucceeded`, `TrialNotRetryable`, `NoCheckpoint`,
    `CheckpointVersionMismatch`.
    """
    if job.state not in FINAL_STATES:
        raise JobNotFinished(job_id=job.id, state=job.state)
    if job.state == JobState.SUCCEEDED:
        raise JobSucceeded(job_id=job.id)
    if job.sweep_id is not None:
        raise TrialNotRetryable(job_id=job.id, sweep_id=job.sweep_id)
    if job.method in SKLEARN_METHODS:
        return None
    start = checkpoints.find_newest_usable_checkpoint(session, job.id)
    if start is None and job.continues is not None:
        start = checkpoints.find_newest_usable_checkpoint(session, job.continues)
    if start is None and job.method == "auto":
        return None
    if start is None:
        raise NoCheckpoint(job_id=job.id)
    if start.training_version != TRAINING_VERSION:
        raise CheckpointVersionMismatch(
            job_id=job.id, made=start.training_version, now=TRAINING_VERSION
        )
    return start


def _get_training_job(session: Session, job_id: UUID, *, refusal: type[Conflict]) -> Job:
    """Return the job. Raises `JobNotFound`, and `refusal` for a prediction run."""
    if repository.find_job(session, job_id, kind=JobKind.PREDICTION) is not None:
        raise refusal(run_id=job_id)
    return repository.get_training_job(session, job_id)
