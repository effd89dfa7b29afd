"""What MLflow is sent of a job, a sweep and a version: parameters, metrics and tags.

Keys and values are cut to what every version of MLflow since 2.0 accepts.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.database.base import JsonObject
from app.jobs.results.comparison import flatten_to_dotted_names
from app.mlflow.client import Metric, RunStatus
from app.queue.enums import JobState
from app.queue.tables import Job, MetricPoint
from app.registry.schemas import VersionView
from app.sweeps.states import SweepState
from app.sweeps.tables import Sweep

MAX_KEY_LENGTH = 250
MAX_PARAM_LENGTH = 500
MAX_TAG_LENGTH = 5000
MAX_NAME_LENGTH = 250
NOTE = "mlflow.note.content"  # the description of a run
PARENT_RUN = "mlflow.parentRunId"
# By these a run and a version are found again, if it is unknown whether they were created.
RUN_TAG = "loraworks.id"
VERSION_TAG = "loraworks.version_id"
DELETED_TAG = "loraworks.deleted"

JOB_STATUSES: Mapping[str, RunStatus] = {
    JobState.SUCCEEDED: "FINISHED",
    JobState.FAILED: "FAILED",
    JobState.CANCELLED: "KILLED",
}
SWEEP_STATUSES: Mapping[SweepState, RunStatus] = {
    SweepState.RUNNING: "RUNNING",
    SweepState.PAUSED: "RUNNING",
    SweepState.STOPPED: "KILLED",
    SweepState.FINISHED: "FINISHED",
}
_INVALID_CHARACTERS = re.compile(r"[^\w.\- /]")
_RESERVED_ALIAS = re.compile(r"latest|v[0-9]+")


def to_milliseconds(seconds: float) -> int:
    """Return a time as MLflow counts it, in milliseconds since 1970."""
    return int(seconds * 1000)


def sanitize_key(text: str) -> str:
    """Return a valid key: a relative path of letters, digits, and `_.- /`."""
    parts = _INVALID_CHARACTERS.sub("_", text).split("/")
    return "/".join(each if each.strip(".") else "_" for each in parts)[:MAX_KEY_LENGTH].rstrip("/")


def accepts_alias(alias: str) -> bool:
    """Return whether MLflow allows an alias: `latest` and `v1` are names of its own."""
    return not _RESERVED_ALIAS.fullmatch(alias)


# Runs


def job_tags(
    job: Job, *, url: str, dataset_digests: Sequence[str], parent_run_id: str | None
) -> dict[str, str]:
    """Return the tags of a new run. `dataset_digests` are the sha256 of its uploads."""
    source = job.spec.get("data", {}).get("source")
    return _tags(
        {
            RUN_TAG: job.id,
            "loraworks.job_id": job.id,
            "loraworks.url": url,
            "loraworks.method": job.method,
            "loraworks.base": job.base,
            "loraworks.dataset": source if isinstance(source, str) else json.dumps(source),
            "loraworks.dataset_sha256": ", ".join(dataset_digests),
            "loraworks.sweep_id": job.sweep_id,
            "loraworks.continues": job.continues,
            "loraworks.tags": ", ".join(job.tags or ()),
            **{f"loraworks.metadata.{name}": value for name, value in job.user_metadata.items()},
            NOTE: f"[Job {job.id}]({url})\n\n{job.notes or ''}".strip(),
            "mlflow.source.name": "loraworks",
            PARENT_RUN: parent_run_id,
        }
    )


def final_job_tags(job: Job) -> dict[str, str]:
    """Return the tags that are known at the end of a job."""
    summary = job.summary or {}
    return _tags(
        {
            "loraworks.state": job.state,
            "loraworks.error_code": job.error_code,
            "loraworks.error": job.error_message,
            "loraworks.model_version": summary.get("model_version"),
            "loraworks.verdict": (summary.get("verdict") or {}).get("headline"),
            "loraworks.attempts": job.attempt,
        }
    )


def sweep_tags(sweep: Sweep, *, url: str) -> dict[str, str]:
    """Return the tags of the run of a sweep, the parent of its trials."""
    return _tags(
        {
            RUN_TAG: sweep.id,
            "loraworks.sweep_id": sweep.id,
            "loraworks.url": url,
            "loraworks.strategy": sweep.strategy.get("type"),
            "loraworks.objective": sweep.objective,
            NOTE: f"[Sweep {sweep.id}]({url})",
            "mlflow.source.name": "loraworks",
        }
    )


def job_params(spec: JsonObject) -> dict[str, str]:
    """Return the settings of a run that have a value, with dotted names."""
    return {
        sanitize_key(name): (value if isinstance(value, str) else json.dumps(value))[
            :MAX_PARAM_LENGTH
        ]
        for name, value in flatten_to_dotted_names(spec).items()
        if value is not None and value != ""
    }


def metric_key(point: MetricPoint) -> str:
    """Return the key of the curve that a point belongs to, such as `train/loss`."""
    return sanitize_key(f"{point.split}/{point.name}")


def build_metric(point: MetricPoint) -> Metric:
    """Return a point of a curve."""
    value = "NaN" if point.value is None else point.value
    return Metric(metric_key(point), value, to_milliseconds(point.at), point.step)


def final_metrics(job: Job) -> list[Metric]:
    """Return the metrics of the result: `best/…`, of the checkpoint that was kept."""
    at = to_milliseconds(job.finished_at or job.created_at)
    return [
        Metric(sanitize_key(f"best/{name}"), value, at, job.step)
        for name, value in _scalar_metrics(job.summary or {})
    ]


# Versions


def version_tags(version: VersionView, *, version_id: object, url: str) -> dict[str, str]:
    """Return the tags of a version, with its metrics as `test/accuracy`."""
    return _tags(
        {
            VERSION_TAG: version_id,
            "loraworks.version": version.ref,
            "loraworks.url": url,
            "loraworks.job_id": version.job_id,
            "loraworks.method": version.method,
            "loraworks.base": version.base,
            **{
                sanitize_key(name): f"{value:.6g}"
                for name, value in _scalar_metrics(version.metrics)
            },
        }
    )


def version_source(version: VersionView) -> str:
    """Return the URI of a version as MLflow wants one. It rejects those with http, to which the
    server could be made to connect."""
    return f"loraworks:/{version.ref.replace(':', '/')}"


def version_description(version: VersionView, *, url: str) -> str:
    """Return a line about a version: a link to it, and the verdict on its model."""
    verdict = (version.metrics.get("verdict") or {}).get("headline")
    return f"[{version.ref} of loraworks]({url}). {verdict or ''}".strip()


def _scalar_metrics(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers in the reports of a run, such as (`test/accuracy`, 0.9)."""
    for split in ("train", "validation", "test"):
        report = summary.get(split)
        for name, value in (report if isinstance(report, Mapping) else {}).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield f"{split}/{name}", float(value)


def _tags(values: Mapping[str, object]) -> dict[str, str]:
    """Return those that have a value, as text."""
    return {
        sanitize_key(name): str(value)[:MAX_TAG_LENGTH]
        for name, value in values.items()
        if value is not None and value != ""
    }
