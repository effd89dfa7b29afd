"""Jobs that wait: telling the workers again, and an end to waiting for ever."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import or_, update
from sqlalchemy.orm import Session

from app.database.clock import now
from app.jobs.endings import STORAGE, Told
from app.jobs.guards import UNSYNCED, append
from app.jobs.moves import NOT_WAITING, backoff
from app.jobs.states import JobState, Lane
from app.jobs.tables import Job


def take_due(session: Session, *, hint_seconds: float) -> list[tuple[UUID, Lane]]:
    """Jobs of which the caller now tells the workers; each row notes it.

    A job that came back is told once it is due. A hint may be lost with its broker, so it is
    repeated: after `hint_seconds`, doubling.
    """
    pause = backoff(hint_seconds, Job.dispatch_count)
    rows = session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, Job.run_after <= now())
        .where(or_(Job.dispatched_at.is_(None), Job.dispatched_at + pause <= now()))
        .values(dispatched_at=now(), dispatch_count=Job.dispatch_count + 1)
        .returning(Job.id, Job.lane),
        execution_options=UNSYNCED,
    )
    return [(row.id, Lane(row.lane)) for row in rows]


def note_trouble(session: Session, lanes: Collection[Lane], *, message: str) -> None:
    """Show on the due jobs of these lanes that they wait for disk or storage of the workers.

    They stay due: nothing is tried meanwhile, so an outage of any length leaves no attempts behind.
    """
    session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, Job.lane.in_(lanes), Job.run_after <= now())
        .where(Job.waiting_code.is_distinct_from(STORAGE))
        .values(waiting_since=now(), waiting_code=STORAGE, waiting_message=message),
        execution_options=UNSYNCED,
    )


def forget_trouble(session: Session, lanes: Collection[Lane]) -> None:
    """A worker for these lanes is well: what `note_trouble` showed is over, and the jobs count as
    queued from now.

    Jobs that met the trouble in an attempt of their own keep it until they have gone on.
    """
    noted = Job.waiting_since >= Job.run_after
    session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, Job.lane.in_(lanes), noted)
        .where(Job.waiting_code == STORAGE)
        .values(**NOT_WAITING, run_after=now()),
        execution_options=UNSYNCED,
    )


def make_all_due(session: Session) -> None:
    """Let every queued job be due now: after a step of the clock its time may be hours away."""
    session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, Job.run_after > now())
        .values(run_after=now()),
        execution_options=UNSYNCED,
    )


def fail_overdue(session: Session, *, queue_seconds: float) -> list[UUID]:
    """End the jobs that have waited for longer than that, unless for a storage that is away."""
    message = f"It waited in the queue for over {queue_seconds:g} s."
    rows = session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, Job.run_after <= now() - queue_seconds)
        .where(Job.waiting_code.is_distinct_from(STORAGE))
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
