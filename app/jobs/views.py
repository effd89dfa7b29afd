"""Response bodies of jobs, made from their rows."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.jobs import repository
from app.jobs.repository import SPLIT_PREFERENCE, JobSummaryFields
from app.jobs.schemas import (
    JobErrorSummaryView,
    JobErrorView,
    JobListItem,
    JobMainMetricView,
    JobStateView,
    JobView,
    JobWaitReason,
    ParameterCountsView,
)
from app.queue.enums import JobState
from app.queue.tables import Job
from lora_core.tasks.metric_info import main_metric

PAUSED_CODE = "paused"
PAUSED_MESSAGE = "The job is paused until it is resumed."


def job_list_items(session: Session, jobs: Sequence[Job]) -> list[JobListItem]:
    ids = [job.id for job in jobs]
    positions = repository.queue_positions(session, ids)
    summaries = repository.get_job_summaries(session, ids)
    return [
        JobListItem(
            **_fields(job, positions.get(job.id), summaries[job.id]),
            error=job_error_summary_view(job),
        )
        for job in jobs
    ]


def job_view(job: Job, queue_position: int | None) -> JobView:
    """Return the response body of a job. Its queue position depends on the other jobs."""
    fields = _fields(job, queue_position, _extract_summary(job.spec, job.summary))
    return JobView(
        **fields,
        notes=job.notes,
        summary=job.summary,
        verdict=(job.summary or {}).get("verdict"),
        error=job_error_view(job),
    )


def job_state_view(job: Job, queue_position: int | None) -> JobStateView:
    return JobStateView(
        state=JobState(job.state),
        attempt=job.attempt,
        step=job.step,
        total_steps=job.total_steps,
        progress=completed_fraction(job),
        queue_position=queue_position,
        paused=job.paused,
        cancel_requested_at=job.cancel_requested_at,
        pause_requested_at=job.pause_requested_at,
    )


def completed_fraction(job: Job) -> float | None:
    """Return the share of the steps that are done; a run that stopped early is at 1."""
    if job.state == JobState.SUCCEEDED:
        return 1.0
    return job.step / job.total_steps if job.total_steps else None


def job_wait_reason_view(job: Job) -> JobWaitReason | None:
    """Return what a queued job waits for, other than its turn."""
    if job.paused and job.pause_requested_at is not None:
        return JobWaitReason(code=PAUSED_CODE, message=PAUSED_MESSAGE, since=job.pause_requested_at)
    if job.state != JobState.QUEUED or job.waiting_code is None or job.waiting_since is None:
        return None
    return JobWaitReason(
        code=job.waiting_code, message=job.waiting_message or "", since=job.waiting_since
    )


def job_error_summary_view(job: Job) -> JobErrorSummaryView | None:
    """Return why a job failed, without details."""
    if job.error_code is None:
        return None
    return JobErrorSummaryView(code=job.error_code, message=job.error_message or "")


def job_error_view(job: Job) -> JobErrorView | None:
    """Return why a job failed, with details."""
    if job.error_code is None:
        return None
    return JobErrorView(
        code=job.error_code, message=job.error_message or "", detail=job.error_detail
    )


def _fields(job: Job, queue_position: int | None, summary: JobSummaryFields) -> dict[str, Any]:
    return {
        **{name: getattr(job, name) for name in _COPIED_COLUMNS},
        "tags": job.tags or [],
        "metadata": job.user_metadata,
        "base": job.base or None,
        "progress": completed_fraction(job),
        "paused": job.paused,
        "queue_position": queue_position,
        "waiting": job_wait_reason_view(job),
        "parameters": _parameter_counts(job, summary),
        "estimated_seconds": job.plan["estimated_seconds"],
        "accuracy": summary.accuracy,
        "metric": _main_metric(job, summary),
        "model_version": summary.model_version,
        "learned": summary.learned,
    }


def _main_metric(job: Job, summary: JobSummaryFields) -> JobMainMetricView | None:
    if summary.main_metric is None:
        return None
    return JobMainMetricView.model_validate(
        {"name": main_metric(job.spec), "value": summary.main_metric}
    )


_COPIED_COLUMNS = frozenset(JobListItem.model_fields) & frozenset(Job.__mapper__.columns.keys())


def _extract_summary(spec: JsonObject, summary: JsonObject | None) -> JobSummaryFields:
    fields: dict[str, Any] = summary or {}

    def metric(name: str) -> float | None:
        values = ((fields.get(split) or {}).get(name) for split in SPLIT_PREFERENCE)
        return next((value for value in values if value is not None), None)

    return JobSummaryFields(
        metric("accuracy"),
        metric(main_metric(spec)),
        fields.get("trainable_parameters"),
        fields.get("total_parameters"),
        fields.get("model_version"),
        (fields.get("verdict") or {}).get("learned"),
    )


def _parameter_counts(job: Job, summary: JobSummaryFields) -> ParameterCountsView:
    """Return the counts of the run once it has ended, and those of the plan until then."""
    trainable, total = summary.trainable_parameters, summary.total_parameters
    if trainable is not None and total is not None:
        return ParameterCountsView(trainable=trainable, total=total, exact=True)
    return ParameterCountsView.model_validate(job.plan["parameters"])
