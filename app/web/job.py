"""The page of one job: progress, results, and the actions available."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.charts.formatting import format_setting_value
from app.errors import AppError
from app.http.dependencies import DatabaseDep, StoreDep
from app.jobs import repository
from app.jobs.results import curves, misclassified
from app.jobs.results.comparison import flatten_to_dotted_names
from app.jobs.results.misclassified import EvaluatedSplit
from app.jobs.results.regression_predictions import list_regression_predictions
from app.jobs.routes import JobId
from app.jobs.schemas import JobView, MisclassifiedText
from app.jobs.service import check_retryable_and_find_checkpoint
from app.jobs.views import job_view
from app.mlflow import views as mlflow
from app.queue.tables import Job, JobEvent
from app.registry import repository as registry
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef, Store, read_manifest
from app.storage.tables import MODEL_KIND
from app.web import formats
from app.web.confusion_matrix import ConfusionMatrix
from app.web.formats import capitalized_metric_label
from app.web.page import render_template
from app.web.scatter_plot import ScatterPlot
from app.web.svg_curves import HEIGHT, WIDTH, LearningCurveView, SvgMetricChart
from lora_core.results import CandidateResult, MetricName
from lora_core.specs.data import Split
from lora_core.specs.encoded_labels import qualified_output_name, unqualified_outputs_of_target
from lora_core.specs.method import SKLEARN_METHODS, describe_method
from lora_core.tasks.metric_info import (
    METRICS,
    main_metric,
    metric_names_of_spec,
    task_type_of_spec,
)

MAX_EVENTS = 200  # newest first
MAX_MISCLASSIFIED = 12
MAX_TEXT_CHARACTERS = 400  # of a misclassified text
EVALUATION_SPLITS: tuple[EvaluatedSplit, ...] = ("test", "validation")
MAX_CURVE_POINTS = 300  # of an inline SVG curve
# Settings that do not apply to a linear model (prefixes).
ENCODER_SETTINGS = (
    *("base", "pooling", "head_init", "data.max_length", "data.long_texts"),
    *("optim.", "stop.", "runtime.", "trial"),
)
TRAINING_EVENTS = ("resumed", "training", "evaluated", "checkpoint")  # kinds, once steps are made
METRIC_SPLITS = ("train", "validation", "test")
# Row title -> path in a job's summary. All of them are shares.
CALIBRATION_PATHS = {
    "single_label": ("Calibration error", ("calibration", "{split}", "after", "ece")),
    "multi_label": ("Brier score", ("calibration", "{split}", "after", "brier")),
    "regression": ("Numbers within the interval", ("calibration", "{split}", "coverage")),
}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class MetricsTable:
    """A job's metrics: one column per split, one row per metric that has a value."""

    splits: list[str]
    rows: dict[str, list[str]]

    @classmethod
    def from_summary(
        cls, summary: Mapping[str, Any], spec: Mapping[str, Any]
    ) -> "MetricsTable | None":
        """Return the table, or None while the job has no metrics."""
        splits = [split for split in METRIC_SPLITS if split in summary]
        main = main_metric(spec)
        found: list[tuple[str, tuple[str, ...], str | None]] = [
            (capitalized_metric_label(name), ("{split}", name), name)
            for name in metric_names_of_spec(spec)
        ]
        if targets := spec.get("task", {}).get("targets"):
            found += [
                (
                    METRICS[qualified_output_name(target, name)].label,
                    ("{split}", "targets", target, name),
                    name,
                )
                for target, task in targets.items()
                for name in metric_names_of_spec({"task": task})
                if name != "loss"
            ]
        else:
            calibration, path = CALIBRATION_PATHS[task_type_of_spec(spec)]
            found.append((calibration, path, None))
        linear = f"{capitalized_metric_label(main)} of the linear model"
        found.append((linear, ("linear", "{split}", main), main))
        rows = {}
        for title, keys, name in found:
            values = [
                _value_at(summary, [key.format(split=each) for key in keys]) for each in splits
            ]
            if any(value is not None for value in values):
                rows[title] = [
                    formats.metric_value(value, name) if name else formats.percent(value)
                    for value in values
                ]
        return cls(splits, rows) if rows else None


def _value_at(summary: Mapping[str, Any], path: list[str]) -> float | None:
    value: Any = summary
    for key in path:
        value = (value or {}).get(key)
    return None if value is None else float(value)


@dataclass(frozen=True)
class MethodCandidateRow:
    """A candidate of the method `auto`, with its cross-validation result."""

    name: str
    metric: MetricName
    value: float
    low: float
    high: float
    texts: int
    seconds: float

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> "MethodCandidateRow":
        candidate = CandidateResult.model_validate(result)
        return cls(
            describe_method(candidate.method),
            candidate.metric,
            candidate.value,
            candidate.low,
            candidate.high,
            candidate.texts,
            candidate.seconds,
        )


@dataclass(frozen=True)
class JobArtifactDetails:
    """The artifact of a job, or the error that prevented reading it."""

    files: Mapping[str, int]  # bytes by file name, those of its base included
    bytes: int  # on disk, without its base
    base_bytes: int | None  # of the base, which is stored once
    is_model: bool
    misclassified: list[MisclassifiedText]
    scatter: ScatterPlot | None  # of a regression: predicted numbers against true ones
    error: str | None = None


@router.get("/jobs/{job_id}", dependencies=[require_scope("jobs:read")])
def job_page(
    request: Request,
    job_id: JobId,
    database: DatabaseDep,
    store: StoreDep,
    part: EvaluatedSplit = "test",
    target: str | None = None,
) -> HTMLResponse:
    """Show a job. `part` is the split of the confusion matrix and the misclassified texts, `target`
    the one of several targets that they are of."""
    with database.read() as session:
        row = repository.get_training_job(session, job_id)
        metric = main_metric(row.spec)
        job = job_view(row, repository.queue_positions(session, [job_id]).get(job_id))
        points = curves.list_curves(
            session, job_id, max_points=MAX_CURVE_POINTS, names=("loss", metric)
        ).data
        events = repository.list_newest_events(session, job_id, limit=MAX_EVENTS)
        versions = registry.get_aliases_by_version_of_job(session, job_id)
        retry_step = _retry_step(session, row)
        sweep_id = repository.find_sweep_of_job(session, job_id)
        mlflow_run = mlflow.find_run_of_job(session, job_id)
        mlflow_error = mlflow.find_last_mlflow_rejection(session, job_id)
        artifact_row = artifacts.get_artifact(session, row.artifact_id) if row.artifact_id else None
    summary = job.summary or {}
    selection = summary.get("selection")
    evaluated = [event for event in reversed(events) if event.kind == "candidate"]
    results = [  # a comparison that was interrupted starts over
        event.data["result"] for event in evaluated if event.attempt == evaluated[-1].attempt
    ]
    candidates = [
        MethodCandidateRow.from_result(result)
        for result in (selection["candidates"] if selection else results)
    ]
    trained_method = (
        selection["candidates"][selection["chosen"]]["method"]["type"] if selection else row.method
    )
    splits = [split for split in EVALUATION_SPLITS if metric in summary.get(split, {})]
    split = part if part in splits else next(iter(splits), None)
    report = summary[split] if split else {}
    labels, shown_task = summary.get("labels", []), task_type_of_spec(row.spec)
    targets = list(report.get("targets", ()))
    target = target if target in targets else next(iter(targets), None)
    if target is not None:
        report, labels = (
            report["targets"][target],
            list(unqualified_outputs_of_target(target, labels)),
        )
        shown_task = task_type_of_spec({"task": row.spec["task"]["targets"][target]})
    artifact = None
    if artifact_row is not None:
        is_model = artifact_row.kind == MODEL_KIND
        artifact = _read_artifact(
            store,
            row,
            artifact_row.ref,
            is_model=is_model,
            split=split,
            target=target,
            shows_numbers=shown_task == "regression",
        )
    return render_template(
        request,
        "job.html",
        job=job,
        name=formats.job_name(job),
        method=formats.method_name(job.spec),
        data=formats.data_source_name(job.spec),
        seconds=None if row.started_at is None else row.running_seconds,
        seconds_left=_seconds_left(job, events),
        uploads=row.dataset_ids,
        curve_size=(WIDTH, HEIGHT),
        task_type=shown_task,
        targets=targets,
        target=target,
        metric=metric,
        metric_title=capitalized_metric_label(metric),
        metric_is_share=METRICS[metric].is_share,
        inline_curves={name: SvgMetricChart.from_curves(points, name) for name in ("loss", metric)},
        events=events,
        retry_step=retry_step,
        can_delete=job.state.final and sweep_id is None,
        is_linear=trained_method == formats.LINEAR_METHOD,
        fitted_at_once=trained_method in SKLEARN_METHODS,
        candidates=candidates,
        chosen=selection["chosen"] if selection else None,
        versions=versions,
        mlflow_run=mlflow_run,
        mlflow_error=mlflow_error,
        metrics=MetricsTable.from_summary(summary, job.spec),
        splits=splits,
        split=split,
        confusion=(
            ConfusionMatrix.from_metrics(labels, report) if "confusion_matrix" in report else None
        ),
        per_label=(  # of a multi-label task
            [(label, report["per_class"][label]) for label in labels]
            if "micro_f1" in report and "per_class" in report
            else None
        ),
        artifact=artifact,
        max_text_characters=MAX_TEXT_CHARACTERS,
        linear_metric=summary.get("linear", {}).get("validation", {}).get(metric),
        learning_curve=LearningCurveView.from_estimate(summary.get("more_labels")),
        settings={
            field: format_setting_value(value)
            for field, value in _applicable_settings(job.spec).items()
        },
    )


def _retry_step(session: Session, job: Job) -> int | None:
    """Return the step a retry starts from (0: the beginning), or None if retry is impossible."""
    try:
        start = check_retryable_and_find_checkpoint(session, job)
    except AppError:
        return None
    return start.step if start else 0


def _applicable_settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that apply to the job's method, with dotted names."""
    settings = flatten_to_dotted_names(spec)
    if spec["method"]["type"] != formats.LINEAR_METHOD:
        return settings
    return {name: v for name, v in settings.items() if not name.startswith(ENCODER_SETTINGS)}


def _read_artifact(  # noqa: PLR0913
    store: Store,
    job: Job,
    ref: ArtifactRef,
    *,
    is_model: bool,
    split: EvaluatedSplit | None,
    target: str | None,
    shows_numbers: bool,
) -> JobArtifactDetails:
    base_bytes = ref.base.bytes if ref.base is not None else None
    try:
        facts = read_manifest(store, ref, name=f"job {job.id}")
        wrong = (
            misclassified.list_misclassified(
                store, job, ref, split=split, limit=MAX_MISCLASSIFIED, target=target
            )
            if split
            else []
        )
        points = (
            list_regression_predictions(store, job, ref, split=Split(split), target=target)
            if split and shows_numbers
            else []
        )
    except AppError as error:  # the rest of the page does not need the artifact
        return JobArtifactDetails({}, ref.bytes, base_bytes, is_model, [], None, error=str(error))
    sizes = {name: int(file["bytes"]) for name, file in facts["files"].items()}
    scatter = ScatterPlot.from_points(points) if points else None
    return JobArtifactDetails(sizes, ref.bytes, base_bytes, is_model, wrong, scatter)


def _seconds_left(job: JobView, events: Sequence[JobEvent]) -> float | None:
    """Estimate the remaining training time from the speed of this attempt, since it trains."""
    of_attempt = (each for each in reversed(events) if each.attempt == job.attempt)
    first = next((each for each in of_attempt if each.kind in TRAINING_EVENTS), None)
    if job.state != "running" or not job.total_steps or first is None:
        return None
    steps: int = job.step - first.data.get("step", 0)
    if steps <= 0:
        return None
    return (time.time() - first.at) * (job.total_steps - job.step) / steps
