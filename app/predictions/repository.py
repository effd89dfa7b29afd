"""SQL on prediction runs. They are rows of the table `jobs`, the queue of both kinds."""

from uuid import UUID

from sqlalchemy.orm import Session

from app.jobs import repository as jobs
from app.predictions.errors import PredictionRunNotFinished, PredictionRunNotFound
from app.queue.enums import JobKind, JobState
from app.queue.tables import Job


def get_run(session: Session, run_id: UUID) -> Job:
    """Return a prediction run. Raises `PredictionRunNotFound`."""
    run = jobs.find_job(session, run_id, kind=JobKind.PREDICTION)
    if run is None:
        raise PredictionRunNotFound(run_id=run_id)
    return run


def list_runs(
    session: Session, *, after: UUID | None, limit: int, state: JobState | None = None
) -> jobs.JobPage:
    """Return the newest runs first."""
    return jobs.list_jobs(
        session,
        after=after,
        limit=limit,
        kind=JobKind.PREDICTION,
        job_filter=jobs.JobFilter(state=state),
    )


def delete_run(session: Session, run_id: UUID) -> list[UUID]:
    """Delete a finished run; return the ids of its artifacts.

    Raises `PredictionRunNotFound`, `PredictionRunNotFinished`.
    """
    artifact_ids = jobs.delete_finished_job(session, run_id, kind=JobKind.PREDICTION)
    if artifact_ids is None:
        raise PredictionRunNotFinished(run_id=run_id, state=get_run(session, run_id).state)
    return artifact_ids
