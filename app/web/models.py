"""Models: what answers under which name, where it comes from, and what else there is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse

from app.auth.middleware import requires
from app.database.engines import Database
from app.http.dependencies import DatabaseDep
from app.http.fields import Slug
from app.http.pagination import cut, decode
from app.jobs import repository as jobs
from app.queue.states import Kind
from app.queue.tables import Job
from app.registry import repository
from app.registry.schemas import VersionView
from app.registry.tables import PRODUCTION, RegisteredModel
from app.serving.routes import ServingDep
from app.serving.shadow import ALIAS as SHADOW
from app.serving.shadow_routes import ShadowView
from app.web import display_names
from app.web.page import Wanted, render

ROWS = 50

router = APIRouter(include_in_schema=False, dependencies=[requires("models:read")])


@dataclass(frozen=True)
class Version:
    """A version as the pages show it."""

    view: VersionView
    aliases: list[str]
    job: Job | None  # None: it was deleted, or the version was imported

    def accuracy(self, part: str, of: str | None = None) -> float | None:
        """On `test` or `validation`; `of="linear"`: that of the linear rival."""
        figures: Mapping[str, Any] = self.view.metrics
        if of is not None:
            figures = figures.get(of) or {}
        return (figures.get(part) or {}).get("accuracy")

    @property
    def verdict(self) -> str | None:
        """Its headline."""
        found: str | None = (self.view.metrics.get("verdict") or {}).get("headline")
        return found

    @property
    def method(self) -> str:
        return display_names.method(self.job.spec) if self.job else self.view.method

    @property
    def job_name(self) -> str | None:
        return display_names.name(self.job) if self.job else None

    @property
    def data(self) -> dict[str, UUID | None]:
        """Names of what it has learned from; those that were uploaded have an id."""
        if self.job is None:
            return {}
        source, ids = self.job.spec["data"]["source"], self.job.dataset_ids
        parts = {"all": source} if isinstance(source, str) else source
        return {name: UUID(ids[part]) if part in ids else None for part, name in parts.items()}


@dataclass(frozen=True)
class Model:
    """A name, its aliases and its versions, the newest first."""

    name: str
    created_at: float
    pointers: list[repository.Pointer]
    versions: list[Version]

    @property
    def newest(self) -> Version:
        return self.versions[0]

    @property
    def production(self) -> Version | None:
        return next((each for each in self.versions if PRODUCTION in each.aliases), None)


@router.get("/models")
def models(
    request: Request, database: DatabaseDep, wanted: Annotated[Wanted, Query()]
) -> HTMLResponse:
    """Names, the newest first; at the first visit, how to get one."""
    with database.read() as session:
        found = repository.models(session, after=decode(wanted.after), limit=ROWS + 1)
        rows, following = cut(found, ROWS)
        shown = [_model(session, row) for row in rows]
    return render(request, "models.html", models=shown, next=following, wanted=wanted)


@router.get("/models/{name}")
async def model(
    request: Request, name: Slug, database: DatabaseDep, serving: ServingDep
) -> HTMLResponse:
    """One model: what its aliases mean, its versions, how the candidate does."""
    shadows = [ShadowView.of(tally) for tally in serving.shadows.tallies(name)]
    return await run_in_threadpool(_page, request, name, database, shadows)


def _page(
    request: Request, name: str, database: Database, shadows: list[ShadowView]
) -> HTMLResponse:
    """Raises `ModelNotFound`."""
    with database.read() as session:
        shown = _model(session, repository.model(session, name))
    return render(
        request,
        "model.html",
        model=shown,
        shadows=shadows,
        production=PRODUCTION,
        usual=[PRODUCTION, SHADOW, "staging"],  # aliases that are offered
    )


def _model(session: Session, row: RegisteredModel) -> Model:
    pointers = repository.pointers(session, row.id)
    versions = [
        Version(
            VersionView.of(row.name, each),
            [pointer.alias for pointer in pointers if pointer.number == each.number],
            jobs.find(session, each.job_id, kind=Kind.TRAINING) if each.job_id else None,
        )
        for each in repository.versions(session, row.id)
    ]
    return Model(row.name, row.created_at, pointers, versions)
