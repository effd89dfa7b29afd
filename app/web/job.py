"""The page of one job: progress, results, and the actions available."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.charts.fields import display_value
from app.errors import AppError
from app.http.dependencies import DatabaseDep, StoreDep
from app.jobs import repository
from app.jobs.results import curves, misclassified
from app.jobs.results.comparison import flatten
from app.jobs.results.misclassified import EvaluatedSplit
from app.jobs.routes import JobId
from app.jobs.schemas import JobView, MisclassifiedText
from app.jobs.service import find_retry_checkpoint
from app.jobs.views import job_view
from app.queue.tables import Job
from app.registry import repository as registry
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef, Store, read_manifest
from app.storage.tables import MODEL_KIND
from app.web import formats
from app.web.confusion_matrix import ConfusionMatrix
from app.web.page import render
from app.web.svg_curves import HEIGHT, WIDTH, LearningCurveView, SvgCurve
from lora_core.results import CandidateResult
from lora_core.specs.method import SKLEARN_METHODS, describe_method

MAX_EVENTS = 200  # newest first
MAX_MISCLASSIFIED = 12
MAX_TEXT_CHARACTERS = 400  # of a misclassified text
EVALUATION_SPLITS: tuple[EvaluatedSplit, ...] = ("test", "validation")
INLINE_CURVES = ("loss", "accuracy")
MAX_CURVE_POINTS = 300  # of an inline SVG curve
# Settings that do not apply to a linear model (prefixes).
ENCODER_SETTINGS = (
    *("base", "pooling", "head_init", "data.max_length", "data.long_texts"),
    *("optim.", "stop.", "runtime.", "trial"),
)
METRIC_SPLITS = ("train", "validation", "test")
# Row title -> path of the metric in a job's summary.
METRIC_PATHS = {
    "Accuracy": ("{split}", "accuracy"),
    "Macro F1": ("{split}", "macro_f1"),
    "Balanced accuracy": ("{split}", "balanced_accuracy"),
    "Loss": ("{split}", "loss"),
    "Calibration error": ("calibration", "{split}", "after", "ece"),
    "Accuracy of the linear model": ("linear", "{split}", "accuracy"),
}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class MetricsTable:
    """A job's metrics: one column per split, one row per metric that has a value."""

    splits: list[str]
    rows: dict[str, list[float | None]]

    @classmethod
    def from_summary(cls, summary: Mapping[str, Any]) -> "MetricsTable | None":
        """Return the table, or None while the job has no metrics."""
        splits = [split for split in METRIC_SPLITS if split in summary]
        rows = {
            title: [
                _value_at(summary, [key.format(split=split) for key in path]) for split in splits
            ]
            for title, path in METRIC_PATHS.items()
        }
        rows = {title: row for title, row in rows.items() if any(v is not None for v in row)}
        return cls(splits, rows) if rows else None


def _value_at(summary: Mapping[str, Any], path: list[str]) -> float | None:
    value: Any = summary
    for key in path:
        value = (value or {}).get(key)
    return None if value is None else float(value)


@dataclass(frozen=True)
class CandidateRow:
    """A candidate of the method `auto`, with its cross-validation result."""

    name: str
    accuracy: float
    low: float
    high: float
    texts: int
    seconds: float

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> "CandidateRow":
        candidate = CandidateResult.model_validate(result)
        return cls(
            describe_method(candidate.method),
            candidate.accuracy,
            candidate.low,
            candidate.high,
            candidate.texts,
            candidate.seconds,
        )


@dataclass(frozen=True)
class JobArtifact:
    """The artifact of a job, or the error that prevented reading it."""

    files: Mapping[str, int]  # bytes by file name, those of its base included
    bytes: int  # on disk, without its base
    base_bytes: int | None  # of the base, which is stored once
    is_model: bool
    misclassified: list[MisclassifiedText]
    error: str | None = None


@router.get("/jobs/{job_id}", dependencies=[require_scope("jobs:read")])
def job_page(
    request: Request,
    job_id: JobId,
    database: DatabaseDep,
    store: StoreDep,
    part: EvaluatedSplit = "test",
) -> HTMLResponse:
    """Show a job. `part` is the split of the confusion matrix and the misclassified texts."""
    with database.read() as session:
        row = repository.get_job(session, job_id)
        job = job_view(row, repository.queue_positions(session, [job_id]).get(job_id))
        points = curves.list_curves(
            session, job_id, max_points=MAX_CURVE_POINTS, names=INLINE_CURVES
        ).data
        events = repository.list_latest_events(session, job_id, limit=MAX_EVENTS)
        versions = registry.list_versions_of_job(session, job_id)
        retry_step = _retry_step(session, row)
        artifact_row = artifacts.get_artifact(session, row.artifact_id) if row.artifact_id else None
    summary = job.summary or {}
    selection = summary.get("selection")
    results = [event.data["result"] for event in reversed(events) if event.kind == "candidate"]
    candidates = [
        CandidateRow.from_result(result)
        for result in (selection["candidates"] if selection else results)
    ]
    trained_method = (
        selection["candidates"][selection["chosen"]]["method"]["type"] if selection else row.method
    )
    splits = [split for split in EVALUATION_SPLITS if "confusion_matrix" in summary.get(split, {})]
    split = part if part in splits else next(iter(splits), None)
    artifact = None
    if artifact_row is not None:
        is_model = artifact_row.kind == MODEL_KIND
        artifact = _read_artifact(store, row, artifact_row.ref, is_model=is_model, split=split)
    return render(
        request,
        "job.html",
        job=job,
        name=formats.job_name(job),
        method=formats.method_name(job.spec),
        data=formats.data_name(job.spec),
        seconds=formats.job_seconds(job),
        seconds_left=_seconds_left(job),
        uploads=row.dataset_ids,
        curve_size=(WIDTH, HEIGHT),
        inline_curves={name: SvgCurve.from_curves(points, name) for name in INLINE_CURVES},
        events=events,
        retry_step=retry_step,
        is_linear=trained_method == formats.LINEAR_METHOD,
        fitted_at_once=trained_method in SKLEARN_METHODS,
        candidates=candidates,
        chosen=selection["chosen"] if selection else None,
        versions=versions,
        metrics=MetricsTable.from_summary(summary),
        splits=splits,
        split=split,
        confusion=(
            ConfusionMatrix.from_metrics(summary["labels"], summary[split]) if split else None
        ),
        artifact=artifact,
        max_text_characters=MAX_TEXT_CHARACTERS,
        linear_accuracy=summary.get("linear", {}).get("validation", {}).get("accuracy"),
        learning_curve=LearningCurveView.from_estimate(summary.get("more_labels")),
        settings={
            field: display_value(value) for field, value in _applicable_settings(job.spec).items()
        },
    )


def _retry_step(session: Session, job: Job) -> int | None:
    """Return the step a retry starts from (0: the beginning), or None if retry is impossible."""
    try:
        start = find_retry_checkpoint(session, job)
    except AppError:
        return None
    return start.step if start else 0


def _applicable_settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that apply to the job's method, with dotted names."""
    settings = flatten(spec)
    if spec["method"]["type"] != formats.LINEAR_METHOD:
        return settings
    return {name: v for name, v in settings.items() if not name.startswith(ENCODER_SETTINGS)}


def _read_artifact(
    store: Store, job: Job, ref: ArtifactRef, *, is_model: bool, split: EvaluatedSplit | None
) -> JobArtifact:
    base_bytes = ref.base.bytes if ref.base is not None else None
    try:
        facts = read_manifest(store, ref, name=f"job {job.id}")
        wrong = (
            misclassified.list_misclassified(store, job, ref, split=split, limit=MAX_MISCLASSIFIED)
            if split
            else []
        )
    except AppError as error:  # the rest of the page does not need the artifact
        return JobArtifact({}, ref.bytes, base_bytes, is_model, [], error=str(error))
    sizes = {name: int(file["bytes"]) for name, file in facts["files"].items()}
    return JobArtifact(sizes, ref.bytes, base_bytes, is_model, wrong)


def _seconds_left(job: JobView) -> float | None:
    """Estimate the remaining training time from the speed so far."""
    elapsed = formats.job_seconds(job)
    if job.state != "running" or not elapsed or not job.progress:
        return None
    return elapsed * (1 - job.progress) / job.progress
