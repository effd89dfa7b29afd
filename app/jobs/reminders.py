"""Jobs that wait: telling the workers again, and an end to waiting for ever."""

from uuid import UUID

from sqlalchemy import case, or_, update
from sqlalchemy.orm import Session

from app.db.clock import now
from app.jobs.endings import Told
from app.jobs.guards import UNSYNCED, append
from app.jobs.moves import doubled
from app.jobs.states import JobState, Lane
from app.jobs.tables import Job

LONGEST_SECONDS = 600.0  # between two hints of one job


def take_due(session: Session, *, hint_seconds: float) -> list[tuple[UUID, Lane]]:
    """Jobs of which the caller now tells the workers; each row notes it.

    A job that came back is told once it is due. A hint may be lost with its broker, so it is
    repeated: after `hint_seconds`, doubling.
    """
    pause = hint_seconds * doubled(Job.dispatch_count)
    capped = case((pause < LONGEST_SECONDS, pause), else_=LONGEST_SECONDS)
    rows = session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, Job.run_after <= now())
        .where(or_(Job.dispatched_at.is_(None), Job.dispatched_at + capped <= now()))
        .values(dispatched_at=now(), dispatch_count=Job.dispatch_count + 1)
        .returning(Job.id, Job.lane),
        execution_options=UNSYNCED,
    )
    return [(row.id, Lane(row.lane)) for row in rows]


def make_all_due(session: Session) -> None:
    """Let every queued job be due now: after a step of the clock its time may be hours away."""
    session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, Job.run_after > now())
        .values(run_after=now()),
        execution_options=UNSYNCED,
    )


def fail_overdue(session: Session, *, queue_seconds: float) -> list[UUID]:
    """End the jobs that have waited for longer than that."""
    message = f"It waited in the queue for over {queue_seconds:g} s."
    rows = session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, Job.run_after <= now() - queue_seconds)
        .values(
            state=JobState.FAILED,
            finished_at=now(),
            error_code="queue_timeout",
            error_message=message,
            stream_seq=Job.stream_seq + 1,
        )
        .returning(Job.id, Job.attempt, Job.stream_seq),
        execution_options=UNSYNCED,
    ).all()
    for row in rows:
        append(session, row, Told("failed", "error", message, {"code": "queue_timeout"}))
    return [row.id for row in rows]
