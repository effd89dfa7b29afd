"""Model pages: versions, aliases, provenance, shadow comparison, and "Try it"."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.database.engines import Database
from app.http.dependencies import AppStateDep, DatabaseDep
from app.http.fields import CleanText, Slug
from app.http.pagination import decode_cursor, split_page
from app.jobs import repository as jobs
from app.mlflow import service as mlflow
from app.mlflow.schemas import MlflowRunView
from app.queue.states import JobKind
from app.queue.tables import Job
from app.registry import repository
from app.registry.schemas import VersionView
from app.registry.tables import PRODUCTION, RegisteredModel
from app.registry.views import version_view
from app.serving.routes import shadow_view
from app.serving.schemas import ShadowView
from app.serving.shadow import SHADOW_ALIAS
from app.web import choices, formats
from app.web.page import ListQuery, render
from app.web.use_elsewhere import UsedVersion, ways_to_use
from lora_core.tasks.metric_names import summary_metrics, summary_targets, summary_task

PAGE_SIZE = 50

router = APIRouter(include_in_schema=False, dependencies=[require_scope("models:read")])


@dataclass(frozen=True)
class VersionRow:
    """A model version as pages show it."""

    view: VersionView
    aliases: list[str]
    job: Job | None  # None: deleted, or the version was imported
    mlflow_url: str | None  # of the version in MLflow
    mlflow_run: MlflowRunView | None

    @property
    def main_metric(self) -> str:
        """The metric that models of its task are compared by."""
        return summary_metrics(self.view.metrics)[0]

    def metric(self, split: str, of: str | None = None) -> str:
        """Format this metric on `test` or `validation`; `of="linear"`: of the linear model."""
        metrics: Mapping[str, Any] = self.view.metrics
        if of is not None:
            metrics = metrics.get(of) or {}
        value: float | None = (metrics.get(split) or {}).get(self.main_metric)
        return formats.metric(value, self.main_metric)

    @property
    def verdict(self) -> str | None:
        """The headline of the job's verdict."""
        headline: str | None = (self.view.metrics.get("verdict") or {}).get("headline")
        return headline

    @property
    def method(self) -> str:
        return formats.method_name(self.job.spec) if self.job else self.view.method

    @property
    def job_name(self) -> str | None:
        return formats.job_name(self.job) if self.job else None

    @property
    def data(self) -> dict[str, UUID | None]:
        """Names of its training data; uploads have an id."""
        if self.job is None:
            return {}
        source, ids = self.job.spec["data"]["source"], self.job.dataset_ids
        sources = {"all": source} if isinstance(source, str) else source
        return {name: UUID(ids[split]) if split in ids else None for split, name in sources.items()}


@dataclass(frozen=True)
class ModelDetails:
    """A registered model with its aliases and versions, newest version first."""

    name: str
    created_at: float
    aliases: list[repository.AliasTarget]
    versions: list[VersionRow]
    mlflow_rejection: str | None

    @property
    def newest(self) -> VersionRow:
        return self.versions[0]

    @property
    def production(self) -> VersionRow | None:
        return next((version for version in self.versions if PRODUCTION in version.aliases), None)


@router.get("/models")
def models_page(
    request: Request, database: DatabaseDep, query: Annotated[ListQuery, Query()]
) -> HTMLResponse:
    """List models, newest first. Without any model, show how to get one."""
    with database.read() as session:
        found = repository.list_models(
            session, after=decode_cursor(query.after), limit=PAGE_SIZE + 1
        )
        rows, next_cursor = split_page(found, PAGE_SIZE)
        models = [_load_details(session, row) for row in rows]
    return render(request, "models.html", models=models, next=next_cursor, query=query)


@router.get("/models/{name}")
async def model_page(
    request: Request, name: Slug, database: DatabaseDep, state: AppStateDep
) -> HTMLResponse:
    """Show a model: its versions, its aliases, and how the shadow version compares."""
    shadows = [shadow_view(stats) for stats in state.serving.shadow_evaluator.stats(name)]
    return await run_in_threadpool(_render_model, request, name, database, shadows)


def _render_model(
    request: Request, name: str, database: Database, shadows: list[ShadowView]
) -> HTMLResponse:
    """Render the page. Raises `ModelNotFound`."""
    with database.read() as session:
        details = _load_details(session, repository.get_model(session, name))
    shown = details.production or details.newest
    used = _used_version(request, shown, name if details.production else shown.view.ref)
    return render(
        request,
        "model.html",
        model=details,
        shadows=shadows,
        used=used,
        ways=ways_to_use(used),
        production=PRODUCTION,
        suggested_aliases=[PRODUCTION, SHADOW_ALIAS, "staging"],
    )


def _used_version(request: Request, row: VersionRow, ref: str) -> UsedVersion:
    spec: Mapping[str, Any] = row.job.spec if row.job else {}  # None: of an import
    return UsedVersion(
        ref=ref,
        method=row.view.method,
        has_encoder=row.view.method != formats.LINEAR_METHOD,
        task=summary_task(row.view.metrics),
        pairs=spec.get("data", {}).get("text_pair_column") is not None,
        targets=summary_targets(row.view.metrics),
        request=request,
    )


def _load_details(session: Session, row: RegisteredModel) -> ModelDetails:
    aliases = repository.list_aliases_with_versions(session, row.id)
    mlflow_urls = mlflow.list_version_urls(session, model_id=row.id, name=row.name)
    versions = [
        VersionRow(
            version_view(row.name, version),
            [alias.alias for alias in aliases if alias.number == version.number],
            jobs.find_job(session, version.job_id, kind=JobKind.TRAINING)
            if version.job_id
            else None,
            mlflow_urls.get(version.number),
            mlflow.find_run(session, version.job_id) if version.job_id else None,
        )
        for version in repository.list_versions(session, row.id)
    ]
    rejection = mlflow.find_rejection(session, row.id)
    return ModelDetails(row.name, row.created_at, aliases, versions, rejection)


# -- The page "Try it", whose script requests predictions while typing ----------------------------


ModelRefQuery = Annotated[Annotated[str, CleanText(200)] | None, Query()]


@router.get("/try")
def try_it_page(
    request: Request,
    database: DatabaseDep,
    model: ModelRefQuery = None,
    compare: ModelRefQuery = None,
) -> HTMLResponse:
    """Show one or two models side by side. Without any model, show how to get one."""
    with database.read() as session:
        options = choices.model_options(session)
    refs = [option.ref for model_options in options.values() for option in model_options]
    return render(
        request,
        "try_it.html",
        model_options=options,
        selected=model if model in refs else next(iter(refs), None),
        compared=compare if compare in refs else None,
        unknown_refs=[ref for ref in (model, compare) if ref and ref not in refs],
    )
