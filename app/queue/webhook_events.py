"""The events of jobs that end, for webhooks."""

from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.outbox import repository as outbox
from app.queue.states import JobKind
from app.queue.tables import Job


def publish_job_ended(session: Session, job_id: UUID) -> None:
    """Add the event of a job that has just ended to the outbox. Prediction runs have none."""
    if not outbox.has_endpoints(session):
        return
    job = session.execute(
        select(
            *(Job.id, Job.name, Job.state, Job.sweep_id, Job.error_code),
            Job.summary["model_version"].as_string().label("model_version"),
        ).where(Job.id == job_id, Job.kind == JobKind.TRAINING)
    ).one_or_none()
    if job is None:
        return
    data = {
        "id": str(job.id),
        "name": job.name,
        "state": job.state,
        "model_version": job.model_version,
        "error_code": job.error_code,
        "sweep_id": None if job.sweep_id is None else str(job.sweep_id),
    }
    outbox.publish(session, f"job.{job.state}", data)
