"""The events of jobs that end, for webhooks."""

from uuid import UUID

from sqlalchemy import Uuid, column, select, table
from sqlalchemy.orm import Session

from app.outbox import repository as outbox
from app.queue.states import JobKind
from app.queue.tables import Job

# The OpenAI API is a higher layer and cannot be imported here: its table is used by name.
_OPENAI_JOBS = table("openai_jobs", column("job_id", Uuid()))


def publish_job_ended(session: Session, job_id: UUID) -> None:
    """Add the event of a job that has just ended to the outbox. Prediction runs have none.

    A job of the OpenAI API has a second one, in its form.
    """
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
    from_openai = select(_OPENAI_JOBS.c.job_id).where(_OPENAI_JOBS.c.job_id == job_id)
    if session.scalars(from_openai).first() is not None:
        outbox.publish(session, f"fine_tuning.job.{job.state}", {"id": f"ftjob-{job_id.hex}"})
