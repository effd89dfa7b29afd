"""One job: how it gets on, what came of it, and what can be done with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from app.auth.middleware import requires
from app.charts.fields import text
from app.errors import AppError
from app.http.dependencies import DatabaseDep, StoreDep
from app.jobs import repository
from app.jobs.results import curves, misclassified
from app.jobs.results.comparison import flat
from app.jobs.results.misclassified import MistakeView, Part
from app.jobs.retry import find_start
from app.jobs.routes import JobId
from app.jobs.schemas import JobView
from app.queue.tables import Job
from app.registry import repository as registry
from app.storage import repository as artifacts
from app.storage.archive import described
from app.storage.store import ArtifactRef, Store
from app.storage.tables import MODEL
from app.web import display_names
from app.web.confusion import Confusion
from app.web.learning_curve import MoreLabelsView
from app.web.metrics_table import Figures
from app.web.page import render
from app.web.svg_curve import HEIGHT, WIDTH, Sketch
from lora_core.model_selection import CandidateResult
from lora_core.specs.method import FITTED_AT_ONCE, named

EVENTS = 200  # the newest, that are shown
MISTAKES = 12
EXCERPT = 400  # characters of a text among them
PARTS: tuple[Part, ...] = ("test", "validation")
SKETCHED = ("loss", "accuracy")
POINTS = 300  # of a curve of a sketch
# Settings that say nothing about a linear model.
WITHOUT_USE = (
    *("base", "pooling", "head_init", "data.max_length"),
    *("optim.", "stop.", "runtime.", "trial"),
)

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Tried:
    """A candidate of the method `auto`, and what it reached in cross-validation."""

    name: str
    accuracy: float
    low: float
    high: float
    texts: int
    seconds: float

    @classmethod
    def of(cls, result: Mapping[str, Any]) -> "Tried":
        found = CandidateResult.model_validate(result)
        return cls(
            named(found.method),
            found.accuracy,
            found.low,
            found.high,
            found.texts,
            found.seconds,
        )


@dataclass(frozen=True)
class Left:
    """What a job left in the store, or why that cannot be told."""

    files: Mapping[str, int]  # bytes by name
    bytes: int
    model: bool
    wrong: list[MistakeView]
    problem: str | None = None


@router.get("/jobs/{job_id}", dependencies=[requires("jobs:read")])
def job(
    request: Request, job_id: JobId, database: DatabaseDep, store: StoreDep, part: Part = "test"
) -> HTMLResponse:
    """The page of a job. `part`: which answers it is judged by."""
    with database.read() as session:
        row = repository.get(session, job_id)
        shown = JobView.of(row, repository.positions(session, [job_id]).get(job_id))
        drawn = curves.read(session, job_id, most=POINTS, names=SKETCHED).data
        events = repository.newest_events(session, job_id, limit=EVENTS)
        versions = registry.of_job(session, job_id)
        retry_step = _retry_step(session, row)
        artifact = artifacts.get(session, row.artifact_id) if row.artifact_id else None
    summary = shown.summary or {}
    selection = summary.get("selection")
    results = [each.data["result"] for each in reversed(events) if each.kind == "candidate"]
    tried = [Tried.of(each) for each in (selection["candidates"] if selection else results)]
    kind = (
        selection["candidates"][selection["chosen"]]["method"]["type"] if selection else row.method
    )
    parts = [each for each in PARTS if "confusion_matrix" in summary.get(each, {})]
    judged = part if part in parts else next(iter(parts), None)
    left = None
    if artifact is not None:
        left = _left(store, row, artifact.ref, model=artifact.kind == MODEL, part=judged)
    return render(
        request,
        "job.html",
        job=shown,
        name=display_names.name(shown),
        method=display_names.method(shown.spec),
        data=display_names.data(shown.spec),
        seconds=display_names.seconds(shown),
        seconds_left=_seconds_left(shown),
        uploads=row.dataset_ids,
        box=(WIDTH, HEIGHT),
        sketches={name: Sketch.of(drawn, name) for name in SKETCHED},
        events=events,
        retry_step=retry_step,
        linear=kind == display_names.LINEAR,
        fitted_at_once=kind in FITTED_AT_ONCE,
        tried=tried,
        chosen=selection["chosen"] if selection else None,
        versions=versions,
        figures=Figures.of(summary),
        parts=parts,
        judged=judged,
        confusion=Confusion.of(summary["labels"], summary[judged]) if judged else None,
        left=left,
        excerpt=EXCERPT,
        rival=summary.get("linear", {}).get("validation", {}).get("accuracy"),
        more_labels=MoreLabelsView.of(summary.get("more_labels")),
        settings={field: text(value) for field, value in _used(shown.spec).items()},
    )


def _retry_step(session: Session, job: Job) -> int | None:
    """Where a retry would go on, 0 for the beginning; None: there can be none."""
    try:
        start = find_start(session, job)
    except AppError:
        return None
    return start.step if start else 0


def _used(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that mean something for the method of a job."""
    fields = flat(spec)
    if spec["method"]["type"] != display_names.LINEAR:
        return fields
    return {name: v for name, v in fields.items() if not name.startswith(WITHOUT_USE)}


def _left(store: Store, job: Job, ref: ArtifactRef, *, model: bool, part: Part | None) -> Left:
    try:
        facts = described(store, ref, name=f"job {job.id}")
        wrong = misclassified.read(store, job, ref, part=part, most=MISTAKES) if part else []
    except AppError as error:  # the rest of the page can be read all the same
        return Left({}, ref.bytes, model, [], problem=str(error))
    sizes = {name: int(file["bytes"]) for name, file in facts["files"].items()}
    return Left(sizes, ref.bytes, model, wrong)


def _seconds_left(job: JobView) -> float | None:
    """Of the training, by the pace so far."""
    passed = display_names.seconds(job)
    if job.state != "running" or not passed or not job.progress:
        return None
    return passed * (1 - job.progress) / job.progress
