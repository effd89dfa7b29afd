"""Response bodies of files, jobs and models, made from their rows."""

from bisect import bisect_right
from collections.abc import Sequence
from operator import attrgetter
from typing import Any

from app.datasets.tables import Dataset
from app.fine_tuning_apis.errors import training_file_error_codes
from app.fine_tuning_apis.fine_tuned_model_names import (
    ORGANIZATION,
    base_or_method_name,
    build_fine_tuned_model_name,
)
from app.mistral.repository import MistralJobWithRequest, RegisteredJobModel
from app.mistral.schemas import (
    MistralCheckpoint,
    MistralCheckpointMetrics,
    MistralEvent,
    MistralFile,
    MistralFileDetails,
    MistralFineTunedModel,
    MistralJobDetails,
    MistralJobView,
    MistralModel,
    MistralStatus,
)
from app.queue.enums import JobState
from app.queue.tables import Job, JobEvent, MetricPoint
from lora_core.specs.data import MAX_LENGTH, Split

_MODEL_PREFIX = "ft:classifier:"
_MIMETYPES = {".jsonl": "application/jsonl"}

# -- Files ----------------------------------------------------------------------------------------


def file_view(dataset: Dataset) -> MistralFile:
    return MistralFile(**_file_fields(dataset))


def file_details_view(dataset: Dataset) -> MistralFileDetails:
    return MistralFileDetails(**_file_fields(dataset))


def _file_fields(dataset: Dataset) -> dict[str, Any]:
    return {
        "id": str(dataset.id),
        "bytes": dataset.bytes,
        "created_at": int(dataset.created_at),
        "filename": dataset.filename,
        "num_lines": dataset.rows,
        "mimetype": _MIMETYPES.get(dataset.suffix, "application/octet-stream"),
    }


# -- Jobs -----------------------------------------------------------------------------------------


def job_status(row: MistralJobWithRequest) -> MistralStatus:
    """Return the status of a job, the one whose `conditions_by_status` it meets."""
    job = row.job
    match JobState(job.state):
        case JobState.QUEUED:
            unstarted = job.paused and job.attempt == 0 and not row.asked.request["auto_start"]
            return "VALIDATED" if unstarted else "QUEUED"
        case JobState.RUNNING:
            return "RUNNING" if job.cancel_requested_at is None else "CANCELLATION_REQUESTED"
        case JobState.SUCCEEDED:
            return "SUCCESS"
        case JobState.FAILED:
            return (
                "FAILED_VALIDATION" if job.error_code in training_file_error_codes() else "FAILED"
            )
        case JobState.CANCELLED:
            return "CANCELLED"


def job_view(row: MistralJobWithRequest) -> MistralJobView:
    return MistralJobView(**_job_fields(row))


def job_details_view(
    row: MistralJobWithRequest, events: Sequence[JobEvent], points: Sequence[MetricPoint]
) -> MistralJobDetails:
    return MistralJobDetails(
        **_job_fields(row),
        classifier_targets=row.asked.request["classifier_targets"],
        events=[event_view(each) for each in events],
        checkpoints=checkpoint_views(row, points),
    )


def _job_fields(row: MistralJobWithRequest) -> dict[str, Any]:
    job, asked = row.job, row.asked.request
    return {
        "id": str(job.id),
        "auto_start": asked["auto_start"],
        "model": base_or_method_name(job),
        "status": job_status(row),
        "created_at": int(job.created_at),
        "modified_at": int(job.finished_at or job.started_at or job.created_at),
        "training_files": [each["file_id"] for each in asked["training_files"]],
        "validation_files": asked.get("validation_files", []),
        "hyperparameters": asked["hyperparameters"],
        "fine_tuned_model": fine_tuned_model_name(row) if job.state == JobState.SUCCEEDED else None,
        "suffix": asked.get("suffix"),
        "trained_tokens": row.measured.trained_tokens,
        "metadata": {"expected_duration_seconds": job.plan["estimated_seconds"]},
    }


def fine_tuned_model_name(row: MistralJobWithRequest) -> str:
    """Return the name by which the model of a job can be called."""
    job = row.job
    suffix = job.register_as if row.asked.request.get("suffix") is not None else None
    return build_fine_tuned_model_name(
        _MODEL_PREFIX, job.id, base=base_or_method_name(job), suffix=suffix
    )


def event_view(event: JobEvent) -> MistralEvent:
    data = {**event.data, "message": event.message, "level": event.level}
    return MistralEvent(name=event.kind, created_at=int(event.at), data=data)


def checkpoint_views(
    row: MistralJobWithRequest, points: Sequence[MetricPoint]
) -> list[MistralCheckpoint]:
    """Return the evaluations on the validation split, the newest first.

    The training loss is the last one before. A method without steps has one evaluation, its result.
    """
    train = [each for each in points if (each.split, each.name) == (Split.TRAIN, "loss")]
    steps = [each.step for each in train]
    evaluations: dict[int, dict[str, MetricPoint]] = {}
    for point in points:
        if point.split == Split.VALIDATION:
            evaluations.setdefault(point.step, {})[point.name] = point
    found = []
    for step, by_name in sorted(evaluations.items(), reverse=True):
        index = bisect_right(steps, step)
        metrics = MistralCheckpointMetrics(
            train_loss=train[index - 1].value if index else None,
            valid_loss=by_name["loss"].value if "loss" in by_name else None,
            valid_mean_token_accuracy=by_name["accuracy"].value if "accuracy" in by_name else None,
        )
        at = max(map(attrgetter("at"), by_name.values()))
        found.append(MistralCheckpoint(step_number=step, created_at=int(at), metrics=metrics))
    return found or _result(row)


def _result(row: MistralJobWithRequest) -> list[MistralCheckpoint]:
    job, measured = row.job, row.measured
    if job.state != JobState.SUCCEEDED:
        return []
    metrics = MistralCheckpointMetrics(
        train_loss=measured.train_loss,
        valid_loss=measured.valid_loss,
        valid_mean_token_accuracy=measured.valid_accuracy,
    )
    created_at = int(job.finished_at or 0)
    return [
        MistralCheckpoint(step_number=measured.kept_step, created_at=created_at, metrics=metrics)
    ]


# -- Models ---------------------------------------------------------------------------------------


def registered_model_view(name: str, created_at: float) -> MistralModel:
    """Return a model that is known by its name in the registry."""
    return MistralModel(
        id=name,
        created=int(created_at),
        owned_by=ORGANIZATION,
        max_context_length=MAX_LENGTH,
        type="base",
    )


def fine_tuned_model_card(model: RegisteredJobModel) -> MistralModel:
    """Return the model of a job, as lists show it."""
    job, asked = model.row.job, model.row.asked
    return MistralModel(
        id=fine_tuned_model_name(model.row),
        created=int(model.created_at),
        owned_by=ORGANIZATION,
        name=asked.model_name,
        description=asked.model_description,
        max_context_length=_max_length(job),
        aliases=list(model.refs),
        type="fine-tuned",
        job=str(job.id),
        root=base_or_method_name(job),
        archived=asked.archived,
    )


def fine_tuned_model_view(model: RegisteredJobModel) -> MistralFineTunedModel:
    job, asked = model.row.job, model.row.asked
    return MistralFineTunedModel(
        id=fine_tuned_model_name(model.row),
        created=int(model.created_at),
        owned_by=ORGANIZATION,
        workspace_id=ORGANIZATION,
        root=base_or_method_name(job),
        root_version=str(job.spec.get("base_revision") or ""),
        archived=asked.archived,
        name=asked.model_name,
        description=asked.model_description,
        max_context_length=_max_length(job),
        aliases=list(model.refs),
        job=str(job.id),
        classifier_targets=asked.request["classifier_targets"],
    )


def _max_length(job: Job) -> int:
    return int(job.spec["data"].get("max_length") or MAX_LENGTH)
