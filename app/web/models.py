"""Model pages: versions, aliases, provenance, and shadow comparison."""

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
from app.http.dependencies import DatabaseDep
from app.http.fields import Slug
from app.http.pagination import decode_cursor, split_page
from app.jobs import repository as jobs
from app.queue.states import JobKind
from app.queue.tables import Job
from app.registry import repository
from app.registry.schemas import VersionView
from app.registry.tables import PRODUCTION, RegisteredModel
from app.serving.routes import ServingDep
from app.serving.shadow import SHADOW_ALIAS
from app.serving.shadow_routes import ShadowView
from app.web import display_names
from app.web.page import ListQuery, render

PAGE_SIZE = 50

router = APIRouter(include_in_schema=False, dependencies=[require_scope("models:read")])


@dataclass(frozen=True)
class VersionRow:
    """A model version as pages show it."""

    view: VersionView
    aliases: list[str]
    job: Job | None  # None: deleted, or the version was imported

    def accuracy(self, split: str, of: str | None = None) -> float | None:
        """Return the accuracy on `test` or `validation`; `of="linear"`: of the linear model."""
        metrics: Mapping[str, Any] = self.view.metrics
        if of is not None:
            metrics = metrics.get(of) or {}
        return (metrics.get(split) or {}).get("accuracy")

    @property
    def verdict(self) -> str | None:
        """The headline of the job's verdict."""
        headline: str | None = (self.view.metrics.get("verdict") or {}).get("headline")
        return headline

    @property
    def method(self) -> str:
        return display_names.method(self.job.spec) if self.job else self.view.method

    @property
    def job_name(self) -> str | None:
        return display_names.name(self.job) if self.job else None

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
    request: Request, name: Slug, database: DatabaseDep, serving: ServingDep
) -> HTMLResponse:
    """Show a model: its versions, its aliases, and how the shadow version compares."""
    shadows = [ShadowView.from_stats(stats) for stats in serving.shadows.stats(name)]
    return await run_in_threadpool(_render_model, request, name, database, shadows)


def _render_model(
    request: Request, name: str, database: Database, shadows: list[ShadowView]
) -> HTMLResponse:
    """Render the page. Raises `ModelNotFound`."""
    with database.read() as session:
        details = _load_details(session, repository.get_model(session, name))
    return render(
        request,
        "model.html",
        model=details,
        shadows=shadows,
        production=PRODUCTION,
        suggested_aliases=[PRODUCTION, SHADOW_ALIAS, "staging"],
    )


def _load_details(session: Session, row: RegisteredModel) -> ModelDetails:
    aliases = repository.alias_targets(session, row.id)
    versions = [
        VersionRow(
            VersionView.from_version(row.name, version),
            [alias.alias for alias in aliases if alias.number == version.number],
            jobs.find(session, version.job_id, kind=JobKind.TRAINING) if version.job_id else None,
        )
        for version in repository.list_versions(session, row.id)
    ]
    return ModelDetails(row.name, row.created_at, aliases, versions)
