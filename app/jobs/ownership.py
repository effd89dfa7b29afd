"""Who may run a job: every guarded UPDATE of the workers.

An attempt owns its job as long as (job, attempt, worker) match a running row. Each function repeats
that condition inside its UPDATE, so a worker that lost the job changes nothing: it gets `None` or
`False` and must write nothing more. Only the database clock is compared. Nothing here commits.
"""

from collections.abc import Set
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    and_,
    case,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session, aliased

from app.db.base import JsonObject
from app.db.clock import now
from app.jobs.endings import (
    Cancelled,
    Ending,
    ExitStatus,
    Failed,
    Preempted,
    Retry,
    Succeeded,
    Told,
    closing,
)
from app.jobs.leases import Beat, Claimed, Lease, Owner
from app.jobs.states import JobState, Lane, Outcome
from app.jobs.tables import Attempt, Job, JobEvent, MetricPoint

Guard = tuple[ColumnElement[bool], ...]

_ASKED = Job.cancel_requested_at.is_not(None)
_AS_IT_IS = {"synchronize_session": False}  # no session holds these rows as objects


def claim(
    session: Session, *, owner: Owner, lanes: Set[Lane], lease_seconds: float
) -> Claimed | None:
    """Take the best job that is due: highest priority, then the longest due. `None`: none waits."""
    waiting = aliased(Job)
    best = (
        select(waiting.id)
        .where(waiting.state == JobState.QUEUED)
        .where(waiting.lane.in_(lanes), waiting.run_after <= now())
        .order_by(waiting.priority.desc(), waiting.run_after, waiting.id)
        .limit(1)
    )
    job = session.scalar(
        update(Job)
        .where(Job.id == best.scalar_subquery(), Job.state == JobState.QUEUED)
        .values(
            state=JobState.RUNNING,
            attempt=Job.attempt + 1,
            worker=owner.id,
            lease_expires_at=now() + lease_seconds,
            started_at=func.coalesce(Job.started_at, now()),
            step=0,
            total_steps=None,
            stream_seq=Job.stream_seq + 1,
        )
        .returning(Job),
        execution_options=_AS_IT_IS,
    )
    if job is None:
        return None
    failed = (Attempt.job_id == job.id, Attempt.outcome == Outcome.FAILED)
    furthest = session.scalar(select(func.max(Attempt.last_step)).where(*failed))
    # This attempt starts at step 0: the points of the one before would stand twice.
    session.execute(delete(MetricPoint).where(MetricPoint.job_id == job.id))
    session.add(
        Attempt(
            job_id=job.id,
            attempt=job.attempt,
            worker=owner.id,
            host=owner.host,
            pid=owner.pid,
            environment={"boot_id": owner.boot_id, "pid_start": owner.pid_start},
        )
    )
    message = f"Attempt {job.attempt} started."
    _append(session, job, Told("started", "info", message, {"worker": owner.id}))
    return Claimed(
        lease=Lease(job.id, job.attempt, owner.id, lease_seconds),
        spec=job.spec,
        dataset_ids=job.dataset_ids,
        register_as=job.register_as,
        failures=job.failures_counted,
        furthest=furthest,
    )


def beat(
    session: Session, lease: Lease, *, step: int, total_steps: int | None = None, reserve: int = 0
) -> Beat | None:
    """Renew the lease, store the step, reserve `reserve` numbers. `None`: fenced."""
    row = session.execute(
        update(Job)
        .where(*_held(lease))
        .values(
            lease_expires_at=now() + lease.seconds,
            step=step,
            total_steps=total_steps,
            stream_seq=Job.stream_seq + reserve,
        )
        .returning(_ASKED.label("asked"), Job.stream_seq),
        execution_options=_AS_IT_IS,
    ).one_or_none()
    if row is None:
        return None
    return Beat(cancel_requested=bool(row.asked), first_seq=row.stream_seq - reserve + 1)


def fix_spec(session: Session, lease: Lease, spec: JsonObject) -> bool:
    """Store what the first attempt settled, such as the thread count. `False`: fenced."""
    statement = update(Job).where(*_held(lease)).values(spec=spec).returning(Job.id)
    return session.scalar(statement, execution_options=_AS_IT_IS) is not None


def finish(session: Session, lease: Lease, ending: Ending, left: ExitStatus | None = None) -> bool:
    """End the attempt. `False`: fenced, nothing was written.

    A job that was asked to be cancelled does not go back to the queue. Success ignores the request.
    """
    outcome, values = _move(ending)
    return _end(session, _held(lease), ending, outcome, values, left or ExitStatus())


def expire(
    session: Session,
    job_id: UUID,
    *,
    seen_attempt: int,
    lost: Retry,
    max_failures: int,
    gone: str | None = None,
) -> bool:
    """End an attempt whose lease ran out, or whose worker `gone` is known to be dead.

    The job waits again, fails with the `max_failures`-th failure, or is cancelled if that was
    asked. `False`: the attempt that was seen does not run any more, or is alive.
    """
    overdue = Job.lease_expires_at < now()
    guard = (
        Job.id == job_id,
        Job.attempt == seen_attempt,
        Job.state == JobState.RUNNING,
        overdue if gone is None else or_(overdue, Job.worker == gone),
    )
    spent = Job.failures_counted + 1 >= max_failures
    failed = and_(~_ASKED, spent)
    values = {
        **_counted(lost),
        "state": case(
            (_ASKED, JobState.CANCELLED), (spent, JobState.FAILED), else_=JobState.QUEUED
        ),
        "finished_at": case((or_(_ASKED, spent), now()), else_=null()),
        "error_code": case((failed, lost.code), else_=null()),
        "error_message": case((failed, lost.message), else_=null()),
    }
    return _end(session, guard, lost, Outcome.LOST, values, ExitStatus())


def _held(lease: Lease) -> Guard:
    return (
        Job.id == lease.job_id,
        Job.attempt == lease.attempt,
        Job.worker == lease.worker,
        Job.state == JobState.RUNNING,
    )


def _move(ending: Ending) -> tuple[Outcome, dict[str, Any]]:
    waits = {
        "state": case((_ASKED, JobState.CANCELLED), else_=JobState.QUEUED),
        "finished_at": case((_ASKED, now()), else_=null()),
    }
    match ending:
        case Succeeded(artifact_id, summary):
            made = {"artifact_id": artifact_id, "summary": summary}
            return Outcome.SUCCEEDED, _final(JobState.SUCCEEDED) | made
        case Failed(code, message, detail):
            error = {"error_code": code, "error_message": message, "error_detail": detail}
            return Outcome.FAILED, _final(JobState.FAILED) | error
        case Cancelled():
            return Outcome.CANCELLED, _final(JobState.CANCELLED)
        case Preempted():
            return Outcome.PREEMPTED, {**waits, "run_after": now()}
        case Retry():
            return Outcome.FAILED, {**waits, **_counted(ending)}


def _final(state: JobState) -> dict[str, Any]:
    return {"state": state, "finished_at": now()}


def _counted(retry: Retry) -> dict[str, Any]:
    doubled = literal(1).bitwise_lshift(Job.failures_counted)
    return {
        "failures_counted": Job.failures_counted + 1,
        "run_after": now() + retry.backoff_seconds * doubled,
    }


def _end(
    session: Session,
    guard: Guard,
    ending: Ending,
    outcome: Outcome,
    values: dict[str, Any],
    left: ExitStatus,
) -> bool:
    row = session.execute(
        update(Job)
        .where(*guard)
        .values(worker=None, lease_expires_at=None, stream_seq=Job.stream_seq + 1, **values)
        .returning(Job.id, Job.attempt, Job.state, Job.step, Job.stream_seq),
        execution_options=_AS_IT_IS,
    ).one_or_none()
    if row is None:
        return False
    ended = {"ended_at": now(), "outcome": outcome, "last_step": row.step}
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == row.id, Attempt.attempt == row.attempt)
        .values(exit_code=left.code, signal=left.signal, **ended),
        execution_options=_AS_IT_IS,
    )
    _append(session, row, closing(ending, JobState(row.state)))
    return True


def _append(session: Session, job: Row[*tuple[Any, ...]] | Job, told: Told) -> None:
    """`job` has just reserved its `stream_seq` for this event."""
    session.add(JobEvent(job_id=job.id, seq=job.stream_seq, attempt=job.attempt, **told._asdict()))
