"""The condition of every write of a worker, and the event that goes with a change of a job."""

from typing import Any

from sqlalchemy import ColumnElement, Row
from sqlalchemy.orm import Session

from app.jobs.endings import Told
from app.jobs.leases import Lease
from app.jobs.states import JobState
from app.jobs.tables import Job, JobEvent

Guard = tuple[ColumnElement[bool], ...]

UNSYNCED = {"synchronize_session": False}  # no session holds these rows as objects


def held(lease: Lease) -> Guard:
    """The attempt still owns its job."""
    return (
        Job.id == lease.job_id,
        Job.attempt == lease.attempt,
        Job.worker == lease.worker,
        Job.state == JobState.RUNNING,
    )


def append(session: Session, job: Row[*tuple[Any, ...]] | Job, told: Told) -> None:
    """`job` has just reserved its `stream_seq` for this event."""
    session.add(JobEvent(job_id=job.id, seq=job.stream_seq, attempt=job.attempt, **told._asdict()))
