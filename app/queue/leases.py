"""Who may run a job: every guarded UPDATE of the workers.

An attempt owns its job as long as (job, attempt, worker) match a running row. Each function repeats
that condition inside its UPDATE, so a worker that lost the job changes nothing: it gets `None` or
`False` and must write nothing more. Only the database clock is compared. Nothing here commits.
"""

from signal import Signals
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, bindparam, case, func, null, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.dml import ReturningUpdate

from app.database.base import JsonObject
from app.database.clock import now
from app.queue import checkpoints, transitions
from app.queue.fencing import (
    UNSYNCED,
    Beat,
    Claimed,
    Guard,
    Lease,
    Owner,
    StoredCheckpoint,
    append,
    held,
)
from app.queue.states import JobState, Kind, Lane, Outcome
from app.queue.tables import Attempt, Job
from app.queue.transitions import CRASH_LOOP, SPENT, Ending, ExitStatus, Retry, Told, closing

SIGKILL = Signals.SIGKILL.value


def _take_best() -> ReturningUpdate[Job, float]:
    best = (
        select(Job.id)
        .where(Job.state == JobState.QUEUED)
        .where(Job.lane.in_((bindparam("in_lane"), Lane.ANY)), Job.run_after <= now())
        .order_by(Job.priority.desc(), Job.created_at, Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)  # SQLite has one writer and no need of it
        .cte("best")
    )
    return (
        update(Job)
        .where(Job.id == best.c.id, Job.state == JobState.QUEUED)
        .values(
            state=JobState.RUNNING,
            attempt=Job.attempt + 1,
            worker=bindparam("by"),
            lane=bindparam("in_lane"),
            lease_expires_at=now() + bindparam("seconds"),
            started_at=func.coalesce(Job.started_at, now()),
            stream_seq=Job.stream_seq + 1,
        )
        .returning(Job, now() - Job.waiting_since)
    )


_TAKE_BEST = _take_best()  # built once: that takes as long as running it


def claim(
    session: Session, *, owner: Owner, lane: Lane, device: str, lease_seconds: float
) -> Claimed | None:
    """Take the best job that is due: highest priority, then the oldest. `None`: none is due.

    `run_after` decides only whether a job is due, so one that was interrupted keeps its place.

    A job of `Lane.ANY` stays with the lane that takes it first: another gives other numbers.
    """
    asked = {"in_lane": lane, "by": owner.id, "seconds": lease_seconds}
    row = session.execute(_TAKE_BEST, asked, execution_options=UNSYNCED).one_or_none()
    if row is None:
        return None
    job, waited = row
    # Then nothing was left behind, and claims must be quick.
    first = job.attempt == 1 and job.continues is None
    checkpoint, furthest, failed_at = _NOTHING if first else _take_up(session, job.id)
    step = checkpoint.step if checkpoint else 0
    claimed = Claimed(
        lease=Lease(job.id, job.attempt, owner.id, lease_seconds),
        kind=Kind(job.kind),
        spec=job.spec,
        dataset_ids=job.dataset_ids,
        register_as=job.register_as,
        promote_to=job.promote_to,
        sweep_id=job.sweep_id,
        failures=job.failures_counted,
        furthest=furthest,
        failed_at=failed_at,
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
    beginning = _beginning(job.attempt, owner, step)
    append(session, job, Told("started", "info", beginning, {"worker": owner.id}))
    return claimed


_Before = tuple[StoredCheckpoint | None, int, frozenset[int]]
_NOTHING: _Before = (None, 0, frozenset())


def _take_up(session: Session, job_id: UUID) -> _Before:
    """Where the attempt begins, how far the attempts before got, and at which steps those have
    failed that began there, too.
    """
    checkpoint = checkpoints.rewind(session, job_id)
    step = checkpoint.step if checkpoint else 0
    session.execute(
        update(Job).where(Job.id == job_id).values(step=step), execution_options=UNSYNCED
    )
    own = Attempt.job_id == job_id
    furthest = session.scalar(select(func.max(Attempt.last_step)).where(own)) or 0
    failed = (own, Attempt.outcome == Outcome.FAILED, Attempt.first_step == step)
    by_itself = Attempt.signal.is_distinct_from(SIGKILL)
    failed_at = session.scalars(select(Attempt.last_step).where(*failed, by_itself).distinct())
    return checkpoint, furthest, frozenset(failed_at)


def _beginning(attempt: int, owner: Owner, step: int) -> str:
    onward = f", from step {step:,}" if step else ""
    return f"Attempt {attempt} started on {owner.host} (process {owner.pid}){onward}."


def beat(
    session: Session, lease: Lease, *, step: int, total_steps: int | None = None, reserve: int = 0
) -> Beat | None:
    """Renew the lease, store the step, reserve `reserve` numbers. `None`: fenced.

    Until an attempt knows its `total_steps`, those of the one before stand.
    """
    row = session.execute(
        update(Job)
        .where(*held(lease))
        .values(
            lease_expires_at=now() + lease.seconds,
            step=step,
            total_steps=func.coalesce(total_steps, Job.total_steps),
            stream_seq=Job.stream_seq + reserve,
        )
        .returning(transitions.ASKED.label("asked"), Job.stream_seq),
        execution_options=UNSYNCED,
    ).one_or_none()
    if row is None:
        return None
    return Beat(cancel_requested=bool(row.asked), first_seq=row.stream_seq - reserve + 1)


def note_inexact(session: Session, lease: Lease) -> None:
    """The run went on where other numbers come out than in an unbroken run."""
    session.execute(
        update(Job).where(*held(lease)).values(resume_exact=False), execution_options=UNSYNCED
    )


def fix_spec(session: Session, lease: Lease, spec: JsonObject) -> bool:
    """Store what the first attempt settled, such as threads and device. `False`: fenced."""
    statement = update(Job).where(*held(lease)).values(spec=spec).returning(Job.id)
    return session.scalar(statement, execution_options=UNSYNCED) is not None


def finish(session: Session, lease: Lease, ending: Ending, left: ExitStatus | None = None) -> bool:
    """End the attempt. `False`: fenced, nothing was written.

    A job that was asked to be cancelled does not go back to the queue. Success ignores the request.
    """
    outcome, values = transitions.move(ending)
    return _end(session, held(lease), ending, outcome, values, left or ExitStatus())


def ended(session: Session, lease: Lease) -> bool:
    """Whether its own worker ended this attempt."""
    mine = (Attempt.job_id == lease.job_id, Attempt.attempt == lease.attempt)
    outcome = session.scalar(select(Attempt.outcome).where(*mine, Attempt.worker == lease.worker))
    return outcome not in (None, Outcome.LOST)


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

    The job waits again, fails with the `max_failures`-th failure in a row without progress, or is
    cancelled if that was asked. One that ends at the step which it never got beyond fails as
    `crash_loop`: it may be what kills its workers.
    `False`: the attempt that was seen does not run any more, or is alive.
    """
    overdue = Job.lease_expires_at < now()
    guard = (
        Job.id == job_id,
        Job.attempt == seen_attempt,
        Job.state == JobState.RUNNING,
        overdue if gone is None else or_(overdue, Job.worker == gone),
    )
    spent = transitions.failures_before() + 1 >= max_failures
    held_until = case((overdue, Job.lease_expires_at), else_=now())
    failed = and_(~transitions.ASKED, spent)
    values = {
        **transitions.counted(lost),
        "running_seconds": _ran(held_until),  # nobody ran it while a machine was off
        "state": case(
            (transitions.ASKED, JobState.CANCELLED), (spent, JobState.FAILED), else_=JobState.QUEUED
        ),
        "finished_at": case((or_(transitions.ASKED, spent), now()), else_=null()),
        "error_code": case(
            (and_(failed, Job.step > 0, Job.step == transitions.furthest()), CRASH_LOOP),
            (failed, lost.code),
            else_=null(),
        ),
        "error_message": case((failed, SPENT.format(lost.message, max_failures)), else_=null()),
    }
    return _end(session, guard, lost, Outcome.LOST, values, ExitStatus())


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
        .values(
            {
                **transitions.LEFT_BEHIND,
                "stream_seq": Job.stream_seq + 1,
                "running_seconds": _ran(now()),
                **values,
            }
        )
        .returning(Job.id, Job.attempt, Job.state, Job.step, Job.stream_seq, Job.error_code),
        execution_options=UNSYNCED,
    ).one_or_none()
    if row is None:
        return False
    ended = {"ended_at": now(), "outcome": outcome, "last_step": row.step}
    session.execute(
        update(Attempt)
        .where(Attempt.job_id == row.id, Attempt.attempt == row.attempt)
        .values(exit_code=left.code, signal=left.signal, **ended),
        execution_options=UNSYNCED,
    )
    append(session, row, closing(ending, JobState(row.state), row.error_code))
    return True


def _ran(until: ColumnElement[float]) -> ColumnElement[float]:
    """The time of all attempts, of which the last one ran until then."""
    began = select(Attempt.started_at).where(
        Attempt.job_id == Job.id, Attempt.attempt == Job.attempt
    )
    return Job.running_seconds + (until - began.scalar_subquery())
