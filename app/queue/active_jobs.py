"""Count the jobs that read something, which must not be deleted until they end."""

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from app.queue.enums import JobState
from app.queue.tables import Job


def count_active_jobs(session: Session, condition: ColumnElement[bool]) -> int:
    """Return the number of queued or running jobs, of every kind, that meet a condition.

    The caller has locked what they would read, so that no further job is being submitted for it.
    """
    # One query per state, since each state has its own index; and one statement, since between two
    # a job could go back from running to queued.
    queued, running = (
        select(func.count()).select_from(Job).where(Job.state == state, condition).scalar_subquery()
        for state in (JobState.QUEUED, JobState.RUNNING)
    )
    count: int = session.scalars(select(queued + running)).one()
    return count
