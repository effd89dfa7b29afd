"""Rows of prediction runs. They stand in the table of jobs, which is the queue of both."""

from uuid import UUID

from sqlalchemy.orm import Session

from app.jobs import repository as queue
from app.predictions.errors import PredictionNotFinished, PredictionNotFound
from app.queue.states import JobState, Kind
from app.queue.tables import Job


def get(session: Session, run_id: UUID) -> Job:
    """Raises `PredictionNotFound`."""
    run = queue.find(session, run_id, kind=Kind.PREDICTION)
    if run is None:
        raise PredictionNotFound(run_id=run_id)
    return run


def page(
    session: Session, *, after: UUID | None, limit: int, state: JobState | None = None
) -> queue.Listed:
    """The newest first."""
    return queue.page(
        session, after=after, limit=limit, kind=Kind.PREDICTION, only=queue.Filter(state=state)
    )


def remove(session: Session, run_id: UUID) -> list[UUID]:
    """Delete a run that has ended; returns the artifact of its results, if it has any.

    Raises `PredictionNotFound`, `PredictionNotFinished`.
    """
    artifacts = queue.discard(session, run_id, kind=Kind.PREDICTION)
    if artifacts is None:
        raise PredictionNotFinished(run_id=run_id, state=get(session, run_id).state)
    return artifacts
