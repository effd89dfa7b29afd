"""Leases on jobs: claim, renew, finish, expire.

An attempt owns its job as long as (job, attempt, worker) match a running row. Each function repeats
that condition inside its UPDATE (fencing), so a worker that lost the job changes nothing: it gets
`None` or `LeaseLost` and must not write any more. Only the database clock is compared. No function
here commits.
"""

from signal import Signals
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, bindparam, case, func, null, or_, select, true, update
from sqlalchemy.orm import Session, aliased
from sqlalchemy.sql.dml import ReturningUpdate

from app.database.base import JsonObject, now
from app.queue import checkpoints, transitions
from app.queue.enums import AttemptOutcome, DeviceClass, JobKind, JobState
from app.queue.events import EventContent, add_job_event
from app.queue.fencing import (
    NO_SESSION_SYNC,
    ClaimedJob,
    FenceConditions,
    Lease,
    LeaseLost,
    LeaseRenewal,
    StoredCheckpoint,
    WorkerIdentity,
    fencing_conditions,
)
from app.queue.tables import Attempt, Job
from app.queue.transitions import (
    CRASH_LOOP,
    FAILURES_EXHAUSTED,
    AttemptResult,
    ProcessExitStatus,
    RetryableFailure,
    attempt_end_event,
)
from app.queue.webhook_events import publish_training_job_ended

SIGKILL = Signals.SIGKILL.value

# Claim


def _build_claim_statement(*conditions: ColumnElement[bool]) -> ReturningUpdate[Job, float]:
    best = (
        select(Job.id)
        .where(transitions.CLAIMABLE, *conditions)
        .where(
            Job.device_class.in_((bindparam("claimed_class"), DeviceClass.ANY)),
            Job.run_after <= now(),
        )
        .order_by(Job.priority.desc(), Job.created_at, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)  # no effect on SQLite, which has a single writer
        .cte("best")
    )
    return (
        update(Job)
        .where(Job.id == best.c.id, transitions.CLAIMABLE)
        .values(
            state=JobState.RUNNING,
            attempt=Job.attempt + 1,
            worker=bindparam("owner"),
            device_class=bindparam("claimed_class"),
            lease_expires_at=now() + bindparam("seconds"),
            started_at=func.coalesce(Job.started_at, now()),
            stream_seq=Job.stream_seq + 1,
        )
        .returning(Job, now() - Job.waiting_since)
    )


# Built once: building takes as long as running.
_CLAIM_BEST = _build_claim_statement()
_CLAIM_BY_ID = _build_claim_statement(Job.id == bindparam("job_id"))


def claim_job(
    session: Session,
    *,
    owner: WorkerIdentity,
    device_class: DeviceClass,
    device: str,
    lease_seconds: float,
    job_id: UUID | None = None,
) -> ClaimedJob | None:
    """Claim the best due job: highest priority, then the oldest. None: no job is due.

    With `job_id`, claim that job; None: it is not due, or not for this device class.

    `run_after` only decides whether a job is due, so an interrupted job keeps its place.

    A job of `DeviceClass.ANY` stays with the device class that claims it first, because another one
    gives different numbers.
    """
    statement = _CLAIM_BEST if job_id is None else _CLAIM_BY_ID
    parameters: dict[str, Any] = {
        "claimed_class": device_class,
        "owner": owner.id,
        "seconds": lease_seconds,
    }
    if job_id is not None:
        parameters["job_id"] = job_id
    row = session.execute(statement, parameters, execution_options=NO_SESSION_SYNC).one_or_none()
    if row is None:
        return None
    job, waited = row
    # A first attempt has nothing to resume, and claims must be fast.
    is_first = job.attempt == 1 and job.continues is None
    checkpoint, furthest_step, failed_steps = (
        _NO_RESUME_STATE if is_first else _resume_state(session, job.id)
    )
    step = checkpoint.step if checkpoint else 0
    claimed = ClaimedJob(
        lease=Lease(job.id, job.attempt, owner.id, lease_seconds),
        kind=JobKind(job.kind),
        spec=job.spec,
        dataset_ids=job.dataset_ids,
        register_as=job.register_as,
        promote_to=job.promote_to,
        failure_count=job.failures_counted,
        furthest_step=furthest_step,
        failed_steps=failed_steps,
        checkpoint=checkpoint,
        time_limit_seconds=job.time_limit_seconds,
        running_seconds=job.running_seconds,
        waiting_code=job.waiting_code,
        waited_seconds=waited,
    )
    session.add(
        Attempt(
            job_id=job.id,
            attempt=job.attempt,
            worker=owner.id,
            host=owner.host,
            pid=owner.pid,
            environment={"boot_id": owner.boot_id, "pid_start": owner.pid_start},
            device=device,
            first_step=step,
        )
    )
    message = _started_message(job.attempt, owner, step)
    add_job_event(session, job, EventContent("started", "info", message, {"worker": owner.id}))
    return claimed


_ResumeState = tuple[StoredCheckpoint | None, int, frozenset[int]]
_NO_RESUME_STATE: _ResumeState = (None, 0, frozenset())


def _resume_state(session: Session, job_id: UUID) -> _ResumeState:
    """Return where the attempt starts, the furthest step so far, and the steps where attempts
    with the same first step failed.
    """
    checkpoint = checkpoints.rewind_metrics_to_newest_checkpoint(session, job_id)
    step = checkpoint.step if checkpoint else 0
    session.execute(
        update(Job).where(Job.id == job_id).values(step=step), execution_options=NO_SESSION_SYNC
    )
    of_job = Attempt.job_id == job_id
    furthest_step = session.scalar(select(func.max(Attempt.last_step)).where(of_job)) or 0
    failed = (of_job, Attempt.outcome == AttemptOutcome.FAILED, Attempt.first_step == step)
    not_killed = Attempt.signal.is_distinct_from(SIGKILL)  # a kill is not the training's fault
    failed_steps = session.scalars(select(Attempt.last_step).where(*failed, not_killed).distinct())
    return checkpoint, furthest_step, frozenset(failed_steps)


def _started_message(attempt: int, owner: WorkerIdentity, step: int) -> str:
    resumed_from = f", from step {step:,}" if step else ""
    return f"Attempt {attempt} started on {owner.host} (process {owner.pid}){resumed_from}."


# Renew


def renew_lease(
    session: Session, lease: Lease, *, step: int, total_steps: int | None = None, reserve: int = 0
) -> LeaseRenewal | None:
    """Renew the lease, store the step and reserve `reserve` sequence numbers.

    Until an attempt knows its `total_steps`, those of the previous one are kept. Returns None if
    the lease was lost.
    """
    row = session.execute(
        update(Job)
        .where(*fencing_conditions(lease))
        .values(
            lease_expires_at=now() + lease.seconds,
            step=step,
            total_steps=func.coalesce(total_steps, Job.total_steps),
            stream_seq=Job.stream_seq + reserve,
        )
        .returning(
            transitions.CANCEL_REQUESTED.label("cancel_requested"),
            transitions.PAUSE_REQUESTED.label("pause_requested"),
            Job.stream_seq,
        ),
        execution_options=NO_SESSION_SYNC,
    ).one_or_none()
    if row is None:
        return None
    return LeaseRenewal(
        cancel_requested=bool(row.cancel_requested),
        pause_requested=bool(row.pause_requested),
        first_seq=row.stream_seq - reserve + 1,
    )


def record_resume_exactness(session: Session, lease: Lease, *, exact: bool) -> None:
    """Record whether the numbers of a resumed run are those of an uninterrupted one.

    They are not if those of the job that it continues are not.
    """
    continued = aliased(Job)
    inexact = (
        select(continued.id)
        .where(continued.id == Job.continues, continued.resume_exact.is_(False))
        .correlate(Job)
        .exists()
    )
    session.execute(
        update(Job)
        .where(*fencing_conditions(lease), inexact if exact else true())
        .values(resume_exact=False),
        execution_options=NO_SESSION_SYNC,
    )


def store_resolved_spec(session: Session, lease: Lease, spec: JsonObject) -> None:
    """Store the spec with what the first attempt resolved: the number of threads.

    Raises `LeaseLost`.
    """
    statement = update(Job).where(*fencing_conditions(lease)).values(spec=spec).returning(Job.id)
    if session.scalar(statement, execution_options=NO_SESSION_SYNC) is None:
        raise LeaseLost


# Finish and expire


def finish_attempt(
    session: Session,
    lease: Lease,
    result: AttemptResult,
    exit_status: ProcessExitStatus | None = None,
) -> None:
    """End the attempt. Raises `LeaseLost`.

    A job with a cancel request does not return to the queue, and one with a request to pause
    returns to it as paused. `Succeeded` ignores both requests.
    """
    outcome, values = transitions.outcome_and_columns(result)
    if not _end_attempt(
        session,
        fencing_conditions(lease),
        result,
        outcome,
        values,
        exit_status or ProcessExitStatus(),
    ):
        raise LeaseLost


def has_worker_ended_attempt(session: Session, lease: Lease) -> bool:
    """Return whether this attempt was ended by its own worker, rather than expired."""
    of_attempt = (Attempt.job_id == lease.job_id, Attempt.attempt == lease.attempt)
    outcome = session.scalar(
        select(Attempt.outcome).where(*of_attempt, Attempt.worker == lease.worker)
    )
    return outcome not in (None, AttemptOutcome.LOST)


def expire_attempt(
    session: Session,
    job_id: UUID,
    *,
    attempt: int,
    failure: RetryableFailure,
    max_failures: int,
    dead_worker: str | None = None,
) -> bool:
    """End an attempt whose lease expired, or whose worker is known to be dead (`dead_worker`).

    The job is requeued, fails with the `max_failures`-th consecutive failure without progress, or
    is paused or cancelled if that was requested. A job that fails at the step it never got beyond
    gets the code `crash_loop`: it may be what kills its workers.

    Returns False if that attempt is not running any more or its lease is still valid.
    """
    expired = Job.lease_expires_at < now()
    conditions = (
        Job.id == job_id,
        Job.attempt == attempt,
        Job.state == JobState.RUNNING,
        expired if dead_worker is None else or_(expired, Job.worker == dead_worker),
    )
    exhausted = transitions.prior_failures_expression() + 1 >= max_failures
    held_until = case((expired, Job.lease_expires_at), else_=now())
    failed = and_(~transitions.CANCEL_REQUESTED, exhausted)
    values = {
        **transitions.failure_count_and_delay_columns(failure),
        # The time after the lease expired does not count: the host may have been off.
        "running_seconds": running_seconds_expression(held_until),
        "state": case(
            (transitions.CANCEL_REQUESTED, JobState.CANCELLED),
            (exhausted, JobState.FAILED),
            else_=JobState.QUEUED,
        ),
        "finished_at": case((or_(transitions.CANCEL_REQUESTED, exhausted), now()), else_=null()),
        "error_code": case(
            (
                and_(
                    failed, Job.step > 0, Job.step == transitions.furthest_attempt_step_expression()
                ),
                CRASH_LOOP,
            ),
            (failed, failure.code),
            else_=null(),
        ),
        "error_message": case(
            (failed, FAILURES_EXHAUSTED.format(failure.message, max_failures)), else_=null()
        ),
    }
    return _end_attempt(
        session, conditions, failure, AttemptOutcome.LOST, values, ProcessExitStatus()
    )


def _end_attempt(
    session: Session,
    conditions: FenceConditions,
    result: AttemptResult,
    outcome: AttemptOutcome,
    values: dict[str, Any],
    exit_status: ProcessExitStatus,
) -> bool:
    row = session.execute(
        update(Job)
        .where(*conditions)
        .values(
            {
                **transitions.RELEASED_LEASE,
                "stream_seq": Job.stream_seq + 1,
                "running_seconds": running_seconds_expression(now()),
                **values,
            }
        )
        .returning(
            Job.id,
            Job.attempt,
            Job.state,
            Job.step,
            Job.stream_seq,
            Job.error_code,
            Job.pause_requested_at,
        ),
        execution_options=NO_SESSION_SYNC,
    ).one_or_none()
    if row is None:
        return False
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == row.id, Attempt.attempt == row.attempt)
        .values(
            ended_at=now(),
            outcome=outcome,
            last_step=row.step,
            exit_code=exit_status.code,
            signal=exit_status.signal,
        ),
        execution_options=NO_SESSION_SYNC,
    )
    state = JobState(row.state)
    paused = row.pause_requested_at is not None
    add_job_event(
        session, row, attempt_end_event(result, state, row.error_code, pause_requested=paused)
    )
    if state.final:
        publish_training_job_ended(session, row.id)
    return True


def running_seconds_expression(until: ColumnElement[float]) -> ColumnElement[float]:
    """Return the running time of all attempts of a job, with the last one running until `until`."""
    started_at = select(Attempt.started_at).where(
        Attempt.job_id == Job.id, Attempt.attempt == Job.attempt
    )
    return Job.running_seconds + (until - started_at.scalar_subquery())
