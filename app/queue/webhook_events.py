"""The events of jobs that end, for webhooks."""

from uuid import UUID

from sqlalchemy import Uuid, column, select, table
from sqlalchemy.orm import Session

from app.outbox import repository as outbox
from app.queue.enums import JobKind
from app.queue.tables import Job

# What `app.openai`, a layer above, knows as the table and the id of a job that it created.
_OPENAI_JOBS = table("openai_jobs", column("job_id", Uuid()))
_OPENAI_JOB_PREFIX = "ftjob-"


def publish_training_job_ended(session: Session, job_id: UUID) -> None:
    """Add the event of a job that has just ended to the outbox. Prediction runs have none.

    A job that was created through the OpenAI API has a second one, in the form of that API.
    """
    if not outbox.has_enabled_endpoints(session):
        return
    created_by_openai = (
        select(_OPENAI_JOBS.c.job_id).where(_OPENAI_JOBS.c.job_id == Job.id).exists()
    )
    job = session.execute(
        select(
            *(Job.id, Job.name, Job.state, Job.sweep_id, Job.error_code),
            Job.summary["model_version"].as_string().label("model_version"),
            created_by_openai.label("created_by_openai"),
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
    outbox.publish_event(session, f"job.{job.state}", data)
    if job.created_by_openai:
        data = {"id": _OPENAI_JOB_PREFIX + job.id.hex}
        outbox.publish_event(session, f"fine_tuning.job.{job.state}", data)
