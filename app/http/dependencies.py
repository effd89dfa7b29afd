"""What middleware and routes share: `AppState`, the caller, and the FastAPI dependencies for both.

Types of the domains above this package are imported for the type checker only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Annotated, cast
from uuid import UUID

from fastapi import Depends, FastAPI, Request
from starlette.types import Scope

from app.database.engines import Database
from app.http.concurrency import ConcurrencyLimiters, RequestExecutor
from app.queue.dispatch import WorkerNotifier
from app.settings import Settings
from app.storage.store import Store

if TYPE_CHECKING:
    from app.auth.authenticator import Authenticator
    from app.http.error_responses import ProblemPageRenderer
    from app.http.health import ReadinessChecks
    from app.jobs.event_stream import EventStreamPoller
    from app.labeling.pools import LabelingPools
    from app.metrics.routes import MetricsRegistry
    from app.registry.routes import ServableCheck
    from app.resources import Resources
    from app.serving.metrics import ServingMetrics
    from app.serving.service import InferenceService
    from app.traffic.recorder import TrafficRecorder


@dataclass(kw_only=True)
class AppState:
    """The state of an application; `create_app` sets it in place of Starlette's `State`."""

    settings: Settings
    metrics: MetricsRegistry
    serving_metrics: ServingMetrics
    readiness_checks: ReadinessChecks
    render_problem: ProblemPageRenderer
    shutting_down: Event = field(default_factory=Event)  # set when the process is asked to stop

    # Set at startup, before the first request.
    resources: Resources = field(init=False)
    authenticator: Authenticator = field(init=False)  # only if authentication is on
    concurrency_limits: ConcurrencyLimiters = field(init=False)
    streams: EventStreamPoller = field(init=False)
    serving: InferenceService = field(init=False)
    traffic: TrafficRecorder = field(init=False)
    labeling: LabelingPools = field(init=False)
    check_servable: ServableCheck = field(init=False)  # for the registry, a layer below serving


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated caller of a request: the id, name and scopes of its API key."""

    id: UUID
    name: str
    scopes: frozenset[str]
    signed_in: bool = False  # by a browser session


def get_app_state(app: FastAPI) -> AppState:
    """Return the state of the application, which is `request.app` or `scope["app"]`."""
    return cast("AppState", app.state)


def get_caller(scope: Scope) -> Caller:
    """Return the caller that `AuthMiddleware` set before routing. Public routes have none."""
    caller: Caller = scope["state"]["caller"]
    return caller


# The dependencies are coroutines because FastAPI runs plain functions in a thread, which costs more
# than they do.


async def _app_state(request: Request) -> AppState:
    return get_app_state(request.app)


async def _settings(request: Request) -> Settings:
    return get_app_state(request.app).settings


async def _database(request: Request) -> Database:
    return get_app_state(request.app).resources.database


async def _store(request: Request) -> Store:
    return get_app_state(request.app).resources.store


async def _notifier(request: Request) -> WorkerNotifier:
    return get_app_state(request.app).resources.notifier


async def _caller(request: Request) -> Caller:
    return get_caller(request.scope)


async def _executor(request: Request) -> RequestExecutor:
    limits = get_app_state(request.app).concurrency_limits
    return RequestExecutor(limits, get_caller(request.scope).id, request.receive)


AppStateDep = Annotated[AppState, Depends(_app_state)]
SettingsDep = Annotated[Settings, Depends(_settings)]
DatabaseDep = Annotated[Database, Depends(_database)]
StoreDep = Annotated[Store, Depends(_store)]
NotifierDep = Annotated[WorkerNotifier, Depends(_notifier)]
CallerDep = Annotated[Caller, Depends(_caller)]
ExecutorDep = Annotated[RequestExecutor, Depends(_executor)]
