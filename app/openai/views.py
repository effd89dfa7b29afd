"""Response bodies of files and fine-tuning jobs, made from their rows."""

import csv
import io
import time
from collections.abc import Sequence
from typing import Any, Literal

from app.database.base import JsonObject
from app.datasets.tables import Dataset
from app.fine_tuning_apis.errors import training_file_error_codes
from app.fine_tuning_apis.fine_tuned_model_names import ORGANIZATION, base_or_method_name
from app.fine_tuning_apis.repository import TrainingSummaryNumbers
from app.openai import ids
from app.openai.repository import OpenAIJobWithRequest
from app.openai.schemas import (
    CheckpointMetrics,
    FineTuningCheckpoint,
    FineTuningErrorBody,
    FineTuningEvent,
    FineTuningJob,
    OpenAIFile,
)
from app.queue.enums import JobState
from app.queue.tables import Job, JobEvent, MetricPoint
from lora_core.errors.data import UnseenLabel
from lora_core.specs.data import Split

_LEVELS = {"info": "info", "warning": "warn", "error": "error"}
_COLUMN_OF_POINT = {
    (Split.TRAIN, "loss"): "train_loss",
    (Split.TRAIN, "accuracy"): "train_accuracy",
    (Split.VALIDATION, "loss"): "valid_loss",
    (Split.VALIDATION, "accuracy"): "valid_mean_token_accuracy",
}
_RESULT_COLUMNS = ("step", *_COLUMN_OF_POINT.values())

# -- Files ----------------------------------------------------------------------------------------


def dataset_file_view(dataset: Dataset) -> OpenAIFile:
    return OpenAIFile(
        id=ids.file_id(dataset.id),
        bytes=dataset.bytes,
        created_at=int(dataset.created_at),
        filename=dataset.filename,
        purpose="fine-tune",
    )


def result_file_view(tuning: OpenAIJobWithRequest, points: Sequence[MetricPoint]) -> OpenAIFile:
    return OpenAIFile(
        id=ids.result_file_id(tuning.job.id),
        bytes=len(build_step_metrics_csv(tuning.measured, points)),
        created_at=int(tuning.job.finished_at or 0),
        filename="step_metrics.csv",
        purpose="fine-tune-results",
    )


def build_step_metrics_csv(
    measured: TrainingSummaryNumbers, points: Sequence[MetricPoint]
) -> bytes:
    """Return the metrics of a job by step. Only the step of the model it kept has all of them."""
    rows: dict[int, dict[str, Any]] = {}
    for point in points:
        column = _COLUMN_OF_POINT.get((Split(point.split), point.name))
        if column is not None:
            rows.setdefault(point.step, {})[column] = point.value
    kept = _kept_metrics(measured)
    rows[kept.step] = {
        "train_loss": kept.train_loss,
        "train_accuracy": kept.train_mean_token_accuracy,
        "valid_loss": kept.valid_loss,
        "valid_mean_token_accuracy": kept.valid_mean_token_accuracy,
    }
    file = io.StringIO()
    writer = csv.DictWriter(file, _RESULT_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({"step": step, **rows[step]} for step in sorted(rows))
    return file.getvalue().encode()


# -- Jobs -----------------------------------------------------------------------------------------


def fine_tuning_job_view(tuning: OpenAIJobWithRequest) -> FineTuningJob:
    job, asked = tuning.job, tuning.asked.request
    succeeded = job.state == JobState.SUCCEEDED
    hyperparameters = _hyperparameters(asked)
    return FineTuningJob.model_validate(
        {
            "id": ids.job_id(job.id),
            "created_at": int(job.created_at),
            "model": base_or_method_name(job),
            "status": job.state,
            "error": _error(job, asked),
            "fine_tuned_model": fine_tuned_model_name(tuning) if succeeded else None,
            "finished_at": None if job.finished_at is None else int(job.finished_at),
            "estimated_finish": _estimated_finish(tuning),
            "hyperparameters": hyperparameters,
            "method": asked.get("method")
            or {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}},
            "seed": job.spec["runtime"]["seed"],
            "training_file": asked["training_file"],
            "validation_file": asked.get("validation_file"),
            "result_files": [ids.result_file_id(job.id)] if succeeded else [],
            "trained_tokens": tuning.measured.trained_tokens,
            "metadata": job.user_metadata or None,
            "organization_id": ORGANIZATION,
        }
    )


def fine_tuned_model_name(tuning: OpenAIJobWithRequest) -> str:
    """Return the name by which the model of a job can be called."""
    job = tuning.job
    suffix = job.register_as if "suffix" in tuning.asked.request else None
    return ids.model_name(job.id, base=base_or_method_name(job), suffix=suffix)


def _hyperparameters(asked: JsonObject) -> JsonObject:
    supervised = (asked.get("method") or {}).get("supervised") or {}
    settings = dict.fromkeys(("batch_size", "learning_rate_multiplier", "n_epochs"), "auto")
    for fields in (supervised.get("hyperparameters"), asked.get("hyperparameters")):
        settings |= {name: value for name, value in (fields or {}).items() if value != "auto"}
    return settings


def _error(job: Job, asked: JsonObject) -> FineTuningErrorBody | None:
    if job.error_code is None:
        return None
    param: Literal["training_file", "validation_file"] | None = None
    if job.error_code == UnseenLabel.code and asked.get("validation_file") is not None:
        param = "validation_file"
    elif job.error_code in training_file_error_codes():
        param = "training_file"
    return FineTuningErrorBody(code=job.error_code, message=job.error_message or "", param=param)


def _estimated_finish(tuning: OpenAIJobWithRequest) -> int | None:
    if tuning.job.state != JobState.RUNNING:
        return None
    seconds_left = tuning.job.plan["estimated_seconds"] - tuning.running_seconds
    return int(time.time() + max(0.0, seconds_left))


# -- Events and checkpoints -----------------------------------------------------------------------


def fine_tuning_event_view(event: JobEvent) -> FineTuningEvent:
    metrics = event.kind == "evaluated" and event.data.get("split") == Split.VALIDATION
    return FineTuningEvent.model_validate(
        {
            "id": ids.event_id(event.job_id, event.seq),
            "created_at": int(event.at),
            "level": _LEVELS[event.level],
            "message": event.message,
            "type": "metrics" if metrics else "message",
            "data": _event_metrics(event.data) if metrics else event.data,
        }
    )


def _event_metrics(data: JsonObject) -> JsonObject:
    return {
        "step": data["step"],
        "valid_loss": data["metrics"].get("loss"),
        "valid_mean_token_accuracy": data["metrics"].get("accuracy"),
    }


def fine_tuning_checkpoint_view(tuning: OpenAIJobWithRequest) -> FineTuningCheckpoint:
    """Return the checkpoint of a job that succeeded."""
    metrics = _kept_metrics(tuning.measured)
    return FineTuningCheckpoint(
        id=ids.checkpoint_id(tuning.job.id),
        created_at=int(tuning.job.finished_at or 0),
        fine_tuned_model_checkpoint=fine_tuned_model_name(tuning),
        fine_tuning_job_id=ids.job_id(tuning.job.id),
        step_number=metrics.step,
        metrics=metrics,
    )


def _kept_metrics(measured: TrainingSummaryNumbers) -> CheckpointMetrics:
    return CheckpointMetrics(
        step=measured.kept_step,
        train_loss=measured.train_loss,
        train_mean_token_accuracy=measured.train_accuracy,
        valid_loss=measured.valid_loss,
        valid_mean_token_accuracy=measured.valid_accuracy,
        full_valid_loss=measured.valid_loss,
        full_valid_mean_token_accuracy=measured.valid_accuracy,
    )
