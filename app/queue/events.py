"""The events of a job: what its page and its event stream list."""

from typing import Any, NamedTuple

from sqlalchemy import Row
from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.queue.tables import Job, JobEvent


class EventContent(NamedTuple):
    """The content of an event, without its job and sequence number."""

    kind: str
    level: str
    message: str
    data: JsonObject


def add_job_event(
    session: Session, job: Row[*tuple[Any, ...]] | Job, content: EventContent
) -> None:
    """Add an event to a job that has just reserved its `stream_seq` for it."""
    session.add(
        JobEvent(job_id=job.id, seq=job.stream_seq, attempt=job.attempt, **content._asdict())
    )
