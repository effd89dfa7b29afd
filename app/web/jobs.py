"""The list of jobs, and the form of a new one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args
from uuid import UUID

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from app.auth.middleware import check_scope, require_scope
from app.http.dependencies import CallerDep, DatabaseDep, SettingsDep
from app.http.fields import CleanText, uuid_or_not_found_validator
from app.http.pagination import decode_cursor, encode_cursor
from app.jobs import repository
from app.jobs.errors import JobNotFound
from app.jobs.repository import JobFilter
from app.jobs.resolve import read_spec_to_copy
from app.jobs.results import curves
from app.jobs.results.comparison import flatten_to_dotted_names
from app.jobs.schemas import JobListItem
from app.jobs.tags import normalize_tag
from app.jobs.views import job_list_items
from app.queue.enums import JobState
from app.queue.tables import Job
from app.web import form_options, formats
from app.web.page import BlankAsNone, ListPageQuery, render_template
from lora_core.specs.data import DataSpec, Split
from lora_core.specs.method import LayerRole, LoraSpec, MethodName, ProbeSpec
from lora_core.specs.task import SeveralTargetsSpec, SingleLabelSpec, TaskType
from lora_core.specs.train import CheckpointSelectionAndStopSpec, RuntimeSpec, TrainSpec

PAGE_SIZE = 50
# What "Run the sample job" submits, and the command that submits the same job. It takes a few
# minutes on two cores.
SAMPLE_JOB: dict[str, Any] = {
    "name": "sample",
    "data": {"source": "rotten-tomatoes", "train_size": 2000},
    "register_as": "sentiment",
}
SAMPLE_COMMAND = (
    "loraworks train --data rotten-tomatoes --train-size 2000 --name sample "
    "--register-as sentiment --watch"
)

router = APIRouter(include_in_schema=False)


class JobListQuery(ListPageQuery):
    """The filters of the list of jobs."""

    q: Annotated[Annotated[str, CleanText(200)] | None, BlankAsNone] = None
    state: Annotated[JobState | None, BlankAsNone] = None
    method: Annotated[MethodName | None, BlankAsNone] = None
    tag: Annotated[Annotated[str, CleanText(200)] | None, BlankAsNone] = None
    include_trials: bool = False  # also list the trials of sweeps


@dataclass(frozen=True)
class JobRow:
    """A row of the list."""

    job: JobListItem
    loss_curve: list[float]  # training loss, scaled to 0 (lowest) to 1 (highest)
    seconds: float | None


@router.get("/", dependencies=[require_scope("jobs:read")])
def jobs_page(
    request: Request, database: DatabaseDep, query: Annotated[JobListQuery, Query()]
) -> HTMLResponse:
    """List jobs, newest first. Without any job, show how to start one."""
    with database.read() as session:
        counts = repository.count_training_jobs_by_state(
            session, include_trials=query.include_trials
        )
        no_jobs = not (counts or repository.count_training_jobs_by_state(session))
        rows, next_cursor = _rows(session, query)
    return render_template(
        request,
        "jobs.html",
        no_jobs=no_jobs,
        sample_job=SAMPLE_JOB if form_options.can_run_sample_job() else None,
        sample_command=SAMPLE_COMMAND,
        counts=counts,
        max_count=repository.MAX_COUNTED,
        rows=rows,
        query=query,
        next=next_cursor,
        states=list(JobState),
        methods=get_args(MethodName),
    )


def _rows(session: Session, query: JobListQuery) -> tuple[list[JobRow], str | None]:
    # A partly typed tag that is not a valid tag matches no job, instead of failing.
    tag = normalize_tag(query.tag or "") or None
    only = JobFilter(query.state, query.method, query.q, tag, query.include_trials)
    jobs, last = repository.list_jobs(
        session, after=decode_cursor(query.after), limit=PAGE_SIZE, job_filter=only
    )
    loss_curves = curves.sample_loss_curves(session, jobs)
    seconds = repository.get_running_seconds_by_job(session, jobs)
    rows = [
        JobRow(item, _min_max_scaled(loss_curves.get(job.id, [])), seconds.get(job.id))
        for job, item in zip(jobs, job_list_items(session, jobs), strict=True)
    ]
    return rows, encode_cursor(last)


def _min_max_scaled(values: list[float]) -> list[float]:
    """Scale to 0 (lowest) to 1 (highest); a constant curve becomes 0.5."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]


# -- The form of a new job. The API plans and submits what it sends -------------------------------


# Fields of the form with a fixed set of values
FORM_OPTIONS = {
    "method.variant": form_options.list_allowed_values(LoraSpec, "variant"),
    "method.class_weight": form_options.list_allowed_values(ProbeSpec, "class_weight"),
    "stop.select_by": form_options.list_allowed_values(CheckpointSelectionAndStopSpec, "select_by"),
    "head_init": form_options.list_allowed_values(TrainSpec, "head_init"),
    "pooling": form_options.list_allowed_values(TrainSpec, "pooling"),
    "data.long_texts": form_options.list_allowed_values(DataSpec, "long_texts"),
    "runtime.precision": form_options.list_allowed_values(RuntimeSpec, "precision"),
    # Several targets are named in a field of their own.
    "task.type": [each for each in get_args(TaskType) if each != "several_targets"],
    "task.ordered": ["true"],
    "task.class_weights": form_options.list_allowed_values(SingleLabelSpec, "class_weights"),
    "task.loss": form_options.list_allowed_values(SingleLabelSpec, "loss"),
    "task.tune_thresholds": ["true"],
}


@router.get("/jobs/new", dependencies=[require_scope("jobs:write")])
def new_job_page(  # noqa: PLR0913 - parameters are the request's inputs
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    caller: CallerDep,
    data: Annotated[Annotated[str, CleanText(1024)] | None, Query()] = None,
    task: Annotated[TaskType | None, Query()] = None,
    from_: Annotated[
        Annotated[UUID, uuid_or_not_found_validator(lambda text: JobNotFound(job_id=text))] | None,
        Query(alias="from"),
    ] = None,
) -> HTMLResponse:
    """Show a form with defaults, with a dataset, or with the settings of another job."""
    if from_ is not None:
        check_scope(caller, "jobs:read")
    initial: dict[str, Any] = {"method": {"type": "auto"}}
    with database.read() as session:
        data_sources = form_options.data_sources(session, settings, caller)
        base_models = form_options.base_models(session, settings, caller)
        source_job = repository.get_training_job(session, from_) if from_ else None
        if source_job:
            initial = _explicit_settings(source_job) | {"name": source_job.name}
    if data:
        initial["data"] = {**initial.get("data", {}), "source": data}
    if task is not None:
        initial["task"] = {"type": task}
    values = flatten_to_dotted_names(initial)
    if targets := initial.get("task", {}).get("targets"):
        values["task.targets"] = json.dumps(targets, ensure_ascii=False)
    return render_template(
        request,
        "new_job.html",
        initial={name: value for name, value in initial.items() if value},
        values=values,
        source_job=source_job,
        source_job_name=formats.job_name(source_job) if source_job else None,
        roles=list(LayerRole),
        options=FORM_OPTIONS,
        data_sources=data_sources,
        base_models=base_models,
        # A source given split by split gets one field per split.
        splits=list(Split) if isinstance(initial.get("data", {}).get("source"), Mapping) else [],
    )


def _explicit_settings(job: Job) -> dict[str, Any]:
    """Return the settings that differ from the defaults. A trial becomes a whole run.

    Those of a preset are among them; the preset itself would override defaults that were given.
    """
    spec = read_spec_to_copy(job)
    settings = spec.model_dump(mode="json", exclude_defaults=True)
    settings.setdefault("method", {})["type"] = spec.method.type
    if not isinstance(spec.task, SingleLabelSpec):
        settings.setdefault("task", {})["type"] = spec.task.type
    if isinstance(spec.task, SeveralTargetsSpec):  # with the type of each, which is a default
        settings["task"]["targets"] = spec.task.model_dump(mode="json")["targets"]
    for name in ("preset", "trial", "result", "spec_version"):
        settings.pop(name, None)
    return settings
