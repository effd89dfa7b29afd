"""Retry: a new job that continues one that failed or was cancelled, from its last checkpoint.

A job of a method that is fitted at once has none and begins anew, as does one that has chosen no
method yet.
"""

from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from app.database.locks import take_turns
from app.idempotency import service as idempotency
from app.idempotency.service import Call
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
from app.jobs.repository import FINAL
from app.jobs.schemas import JobView
from app.jobs.service import enqueue
from app.queue import checkpoints
from app.queue.dispatch import JobQueue
from app.queue.states import JobState, Kind
from app.queue.tables import Checkpoint, Job
from app.settings import Settings
from lora_core.specs.method import FITTED_AT_ONCE
from lora_core.training_version import TRAINING_VERSION

COPIED = (
    *("name", "tags", "notes", "labels", "method", "lane", "priority", "spec", "spec_version"),
    *(
        "dataset_ids",
        "base",
        "register_as",
        "promote_to",
        "plan",
        "cell_sha256",
        "time_limit_seconds",
    ),
)

log = structlog.get_logger(__name__)


def retry(
    session: Session, *, job_id: UUID, settings: Settings, queue: JobQueue, call: Call
) -> JobView:
    """Store the job that continues this one, commit, then tell the workers.

    It has the same spec, as the first attempt settled it, and the curves up to the checkpoint: it
    ends with the bits of a run to which nothing happened. The old job stays as it is.

    Raises `JobNotFound`, what `find_start` raises, `AlreadyRetried`, `BaseNotFound`,
    `DataNotFound`, and what `idempotency.begin` and `enqueue` raise.
    """
    idempotency.begin(session, call)
    take_turns(session, f"retries of {job_id}")
    old = _get(session, job_id)
    start = find_start(session, old)
    first = start.job_id if start else job_id
    if (other := repository.continued_by(session, first)) is not None:
        raise AlreadyRetried(job_id=job_id, other=other)
    base_models.check_name(session, old.base)
    data_sources.hold(session, old.dataset_ids)
    job = Job(**{column: getattr(old, column) for column in COPIED}, continues=first)
    view = enqueue(
        session, job, view_of=JobView.of, settings=settings, queue=queue, call=call, start=start
    )
    log.info("job retried", job_id=str(job.id), of=str(job_id), step=start.step if start else 0)
    return view


def find_start(session: Session, job: Job) -> Checkpoint | None:
    """The checkpoint that a retry begins with: the job's own, or the one that it began with itself.

    None: it begins anew, since its method saves none. Raises `JobNotFinished`, `JobSucceeded`,
    `TrialNotRetried`, `NoCheckpoint`, `TrainingVersionChanged`.
    """
    if job.state not in FINAL:
        raise JobNotFinished(job_id=job.id, state=job.state)
    if job.state == JobState.SUCCEEDED:
        raise JobSucceeded(job_id=job.id)
    if job.sweep_id is not None:
        raise TrialNotRetried(job_id=job.id, sweep_id=job.sweep_id)
    if job.method in FITTED_AT_ONCE:
        return None
    start = checkpoints.last(session, job.id)
    if start is None and job.continues is not None:
        start = checkpoints.last(session, job.continues)
    if start is None and job.method == "auto":
        return None
    if start is None:
        raise NoCheckpoint(job_id=job.id)
    if start.training_version != TRAINING_VERSION:
        raise TrainingVersionChanged(
            job_id=job.id, made=start.training_version, now=TRAINING_VERSION
        )
    return start


def _get(session: Session, job_id: UUID) -> Job:
    if repository.find(session, job_id, kind=Kind.PREDICTION) is not None:
        raise PredictionRunNotRetried(run_id=job_id)
    return repository.get(session, job_id)
