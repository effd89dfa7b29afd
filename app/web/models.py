"""Model pages: versions, aliases, provenance, shadow comparison, and "Try it"."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.database.engines import Database
from app.drift import service as drift
from app.drift.description import describe_drift
from app.drift.schemas import DriftView
from app.errors import AppError
from app.feedback.live_accuracy import list_live_accuracy
from app.feedback.schemas import LiveAccuracy
from app.http.dependencies import AppStateDep, CallerDep, DatabaseDep
from app.http.fields import CleanText, Slug
from app.http.pagination import decode_cursor, split_page
from app.jobs import repository as jobs
from app.mlflow import views as mlflow
from app.mlflow.schemas import MlflowRunView
from app.queue.enums import JobKind
from app.queue.tables import Job
from app.registry import repository
from app.registry.schemas import VersionView
from app.registry.tables import PRODUCTION, SHADOW, ModelVersion, RegisteredModel
from app.registry.views import version_view
from app.resources import Resources
from app.serving.routes import shadow_view
from app.serving.schemas import ShadowComparisonView
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.store import Store, read_manifest
from app.web import form_options, formats, retraining
from app.web.drift import DRIFT_DAYS
from app.web.page import ListPageQuery, render_template
from app.web.prediction_review import LIVE_ACCURACY_DAYS
from app.web.usage_snippets import SnippetModelVersion, build_usage_snippets
from lora_core.tasks.metric_info import metric_names_of_summary

PAGE_SIZE = 50
_CACHE_SECONDS = 10  # an open page is rendered every two seconds, but estimates take longer

router = APIRouter(include_in_schema=False, dependencies=[require_scope("models:read")])


@dataclass(frozen=True)
class VersionRow:
    """A model version as pages show it."""

    view: VersionView
    aliases: list[str]
    job: Job | None  # None: deleted, or the version was imported
    mlflow_url: str | None = None  # of the version in MLflow
    mlflow_run: MlflowRunView | None = None

    @property
    def main_metric(self) -> str:
        """The metric that models of its task are compared by."""
        return metric_names_of_summary(self.view.metrics)[0]

    def format_main_metric(self, split: str, of: str | None = None) -> str:
        """Format this metric on `test` or `validation`; `of="linear"`: of the linear model."""
        metrics: Mapping[str, Any] = self.view.metrics
        if of is not None:
            metrics = metrics.get(of) or {}
        value: float | None = (metrics.get(split) or {}).get(self.main_metric)
        return formats.metric_value(value, self.main_metric)

    @property
    def method(self) -> str:
        return formats.method_name(self.job.spec) if self.job else self.view.method

    @property
    def job_name(self) -> str | None:
        return formats.job_name(self.job) if self.job else None

    @property
    def dataset_ids_by_source(self) -> dict[str, UUID | None]:
        """Names of its training data; uploads have an id."""
        if self.job is None:
            return {}
        source, ids = self.job.spec["data"]["source"], self.job.dataset_ids
        sources = {"all": source} if isinstance(source, str) else source
        return {name: UUID(ids[split]) if split in ids else None for split, name in sources.items()}


@dataclass(frozen=True)
class ModelRow:
    """A registered model in the list."""

    name: str
    aliases: Mapping[str, int]  # the number of the version of each
    version: VersionRow  # in production, or else the newest
    version_count: int
    newest_created_at: float  # when the newest version was made


@dataclass(frozen=True)
class ModelDetails:
    """A registered model with its aliases and versions, newest version first."""

    name: str
    created_at: float
    aliases: list[repository.AliasTarget]
    versions: list[VersionRow]
    mlflow_error: str | None

    @property
    def newest(self) -> VersionRow:
        return self.versions[0]

    @property
    def production(self) -> VersionRow | None:
        return next((version for version in self.versions if PRODUCTION in version.aliases), None)


@router.get("/models")
def models_page(
    request: Request, database: DatabaseDep, query: Annotated[ListPageQuery, Query()]
) -> HTMLResponse:
    """List models, newest first. Without any model, show how to get one."""
    with database.read() as session:
        found = repository.list_models(
            session, after=decode_cursor(query.after), limit=PAGE_SIZE + 1
        )
        rows, next_cursor = split_page(found, PAGE_SIZE)
        models = _list_rows(session, rows)
    return render_template(request, "models.html", models=models, next=next_cursor, query=query)


@router.get("/models/{name}")
async def model_page(request: Request, name: Slug, state: AppStateDep) -> HTMLResponse:
    """Show a model: its versions, its aliases, and how the shadow version compares."""
    shadows = [
        shadow_view(stats) for stats in state.serving.shadow_evaluator.list_stats_of_model(name)
    ]
    resources = state.resources
    return await run_in_threadpool(_render_model, request, name, resources, shadows)


def _render_model(
    request: Request, name: str, resources: Resources, shadows: list[ShadowComparisonView]
) -> HTMLResponse:
    """Render the page. Raises `ModelNotFound`."""
    database, store, settings = resources.database, resources.store, resources.settings
    with database.read() as session:
        row = repository.get_model(session, name)
        details = _load_details(session, row)
        rule, runs = retraining.find_rule(session, name), retraining.list_newest_runs(session, row)
    shown = details.production or details.newest
    period = int(time.monotonic() / _CACHE_SECONDS)
    drift_view = _drift(database, settings, shown.view.ref, period)
    ref = name if details.production else shown.view.ref
    spec = _read_spec(database, store, shown)
    return render_template(
        request,
        "model.html",
        model=details,
        shadows=shadows,
        ref=ref,
        ways=build_usage_snippets(_used_version(request, shown, ref, spec)) if spec else [],
        production=PRODUCTION,
        suggested_aliases=[PRODUCTION, SHADOW, "staging"],
        retraining_rule=rule,
        retraining_runs=runs,
        drift=drift_view,
        drift_description=describe_drift(drift_view),
        accuracies=_live_accuracy(database, name, period),
    )


@lru_cache(maxsize=64)
def _live_accuracy(database: Database, name: str, _period: int) -> list[LiveAccuracy]:
    """Return the live accuracy, estimated once in a period."""
    with database.read() as session:
        return list_live_accuracy(session, model=name, days=LIVE_ACCURACY_DAYS)


@lru_cache(maxsize=64)
def _drift(database: Database, settings: Settings, ref: str, _period: int) -> DriftView:
    """Return what is known about a version's traffic, read once in a period."""
    with database.read() as session:
        return drift.get_drift(session, settings=settings, ref=ref, days=DRIFT_DAYS)


def _read_spec(database: Database, store: Store, row: VersionRow) -> Mapping[str, Any] | None:
    """Return the spec that made a version: of an import, that in its artifact. None: it cannot be
    read, and the rest of the page does not need it."""
    if row.job is not None:
        return row.job.spec
    try:
        with database.read() as session:
            stored = artifacts.get_artifact(session, row.view.artifact_id).ref
        spec: Mapping[str, Any] = read_manifest(store, stored, name=row.view.ref)["spec"]
    except AppError:
        return None
    return spec


def _used_version(
    request: Request, row: VersionRow, ref: str, spec: Mapping[str, Any]
) -> SnippetModelVersion:
    task = spec.get("task", {})
    return SnippetModelVersion(
        ref=ref,
        method=row.view.method,
        has_encoder=row.view.method != formats.LINEAR_METHOD,
        task=task.get("type", "single_label"),
        pairs=spec.get("data", {}).get("text_pair_column") is not None,
        targets=tuple(task.get("targets") or ()),
        request=request,
    )


def _list_rows(session: Session, models: Sequence[RegisteredModel]) -> list[ModelRow]:
    """Load what the list shows, in as many queries for any number of models and versions."""
    ids = [model.id for model in models]
    counts = repository.get_version_count_and_newest_by_model(session, ids)
    aliases = repository.list_version_numbers_by_alias(session, ids)
    newest = {id_: (id_, number) for id_, (_, number) in counts.items()}
    shown = {id_: (id_, aliases[id_].get(PRODUCTION, counts[id_][1])) for id_ in ids}
    versions = repository.find_versions_by_number(session, {*newest.values(), *shown.values()})
    made_by = _find_jobs(session, versions.values())
    rows = []
    for model in models:
        version = versions[shown[model.id]]
        own = [name for name, number in aliases[model.id].items() if number == version.number]
        rows.append(
            ModelRow(
                model.name,
                aliases[model.id],
                VersionRow(version_view(model.name, version), own, made_by.get(version.id)),
                version_count=counts[model.id][0],
                newest_created_at=versions[newest[model.id]].created_at,
            )
        )
    return rows


def _load_details(session: Session, row: RegisteredModel) -> ModelDetails:
    aliases = repository.list_alias_targets(session, row.id)
    versions = repository.list_versions(session, row.id)
    made_by = _find_jobs(session, versions)
    mlflow_urls = mlflow.list_version_urls(session, model_id=row.id, name=row.name)
    mlflow_runs = mlflow.find_runs(session, [each.job_id for each in versions if each.job_id])
    rows = [
        VersionRow(
            version_view(row.name, version),
            [alias.alias for alias in aliases if alias.number == version.number],
            made_by.get(version.id),
            mlflow_urls.get(version.number),
            mlflow_runs.get(version.job_id) if version.job_id else None,
        )
        for version in versions
    ]
    mlflow_error = mlflow.find_last_mlflow_rejection(session, row.id)
    return ModelDetails(row.name, row.created_at, aliases, rows, mlflow_error)


def _find_jobs(session: Session, versions: Iterable[ModelVersion]) -> dict[UUID, Job]:
    """Return the jobs that made versions, unless they are deleted, by the ids of the versions."""
    job_ids = {each.id: each.job_id for each in versions if each.job_id}
    found = jobs.find_jobs(session, set(job_ids.values()), kind=JobKind.TRAINING)
    return {id_: found[job_id] for id_, job_id in job_ids.items() if job_id in found}


# -- The page "Try it", whose script requests predictions while typing ----------------------------


ModelRefQuery = Annotated[Annotated[str, CleanText(200)] | None, Query()]


@router.get("/try")
def try_it_page(
    request: Request,
    database: DatabaseDep,
    caller: CallerDep,
    model: ModelRefQuery = None,
    compare: ModelRefQuery = None,
) -> HTMLResponse:
    """Show one or two models side by side. Without any model, show how to get one."""
    with database.read() as session:
        options = form_options.model_options(session, caller, model, compare)
    refs = [option.ref for model_options in options.values() for option in model_options]
    return render_template(
        request,
        "try_it.html",
        model_options=options,
        selected=model if model in refs else next(iter(refs), None),
        compared=compare if compare in refs else None,
        unknown_refs=[ref for ref in (model, compare) if ref and ref not in refs],
    )
