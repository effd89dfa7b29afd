"""Retry: a new job that continues a failed or cancelled one from its last checkpoint.

A job has no checkpoint if its method is fitted in one step, or if `auto` has not selected a method
yet. Its retry starts from the beginning.
"""

from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.database.engines import acquire_transaction_lock
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentCall
from app.jobs import base_models, data_sources, repository
from app.jobs.errors import (
    AlreadyRetried,
    JobNotFinished,
    JobSucceeded,
    NoCheckpoint,
    PredictionRunNotRetried,
    TrainingVersionChanged,
    TrialNotRetried,
)
from app.jobs.repository import FINAL_STATES
from app.jobs.schemas import JobView
from app.jobs.service import enqueue
from app.queue import checkpoints
from app.queue.dispatch import JobQueue
from app.queue.states import JobKind, JobState
from app.queue.tables import Checkpoint, Job
from app.settings import Settings
from lora_core.specs.method import SKLEARN_METHODS
from lora_core.training_version import TRAINING_VERSION

COPIED_COLUMNS = (
    "name",
    "tags",
    "notes",
    "labels",
    "method",
    "lane",
    "priority",
    "spec",
    "spec_version",
    "dataset_ids",
    "base",
    "register_as",
    "promote_to",
    "plan",
    "cell_sha256",
    "time_limit_seconds",
)

log = structlog.get_logger(__name__)


def retry(
    session: Session, *, job_id: UUID, settings: Settings, queue: JobQueue, call: IdempotentCall
) -> JobView:
    """Store a job that continues this one, commit, then notify the workers.

    It has the spec as resolved by the first attempt, and the curves up to the checkpoint. Its
    result is bit-for-bit identical to that of an uninterrupted run. The old job stays as it is.

    Raises `JobNotFound`, what `find_start_checkpoint` raises, `AlreadyRetried`, `BaseNotFound`,
    `DataNotFound`, and what `idempotency.reserve` and `enqueue` raise.
    """
    idempotency.reserve(session, call)
    acquire_transaction_lock(session, f"retries of {job_id}")
    old = _get_training_job(session, job_id)
    start = find_start_checkpoint(session, old)
    first = start.job_id if start else job_id
    if (other := repository.find_active_continuation(session, first)) is not None:
        raise AlreadyRetried(job_id=job_id, other=other)
    base_models.check_name_exists(session, old.base)
    data_sources.lock_uploads(session, old.dataset_ids)
    job = Job(**{column: getattr(old, column) for column in COPIED_COLUMNS}, continues=first)
    view = enqueue(
        session,
        job,
        view_of=JobView.from_job,
        settings=settings,
        queue=queue,
        call=call,
        start=start,
    )
    log.info("retried job", job_id=str(job.id), of=str(job_id), step=start.step if start else 0)
    return view


def find_start_checkpoint(session: Session, job: Job) -> Checkpoint | None:
    """Return the checkpoint that a retry starts from: the job's own, or the one it started from.

    None: it starts from the beginning, since no checkpoint is expected.

    Raises `JobNotFinished`, `JobSucceeded`, `TrialNotRetried`, `NoCheckpoint`,
    `TrainingVersionChanged`.
    """
    if job.state not in FINAL_STATES:
        raise JobNotFinished(job_id=job.id, state=job.state)
    if job.state == JobState.SUCCEEDED:
        raise JobSucceeded(job_id=job.id)
    if job.sweep_id is not None:
        raise TrialNotRetried(job_id=job.id, sweep_id=job.sweep_id)
    if job.method in SKLEARN_METHODS:
        return None
    start = checkpoints.find_latest(session, job.id)
    if start is None and job.continues is not None:
        start = checkpoints.find_latest(session, job.continues)
    if start is None and job.method == "auto":
        return None
    if start is None:
        raise NoCheckpoint(job_id=job.id)
    if start.training_version != TRAINING_VERSION:
        raise TrainingVersionChanged(
            job_id=job.id, made=start.training_version, now=TRAINING_VERSION
        )
    return start


def _get_training_job(session: Session, job_id: UUID) -> Job:
    if repository.find(session, job_id, kind=JobKind.PREDICTION) is not None:
        raise PredictionRunNotRetried(run_id=job_id)
    return repository.get(session, job_id)
