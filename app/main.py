"""The application: `uvicorn --factory app.main:create_app`."""

import threading
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import cache

import structlog
from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

import lora_core
from app import logging
from app.auth.api_key_cache import ApiKeyCache
from app.auth.middleware import AuthMiddleware
from app.auth.secrets import load_pepper
from app.charts import routes as charts
from app.database import migrations
from app.datasets import routes as datasets
from app.errors import AppError
from app.http import error_responses, health, openapi
from app.http.concurrency import WorkSlots
from app.http.connections import raise_file_limit
from app.http.disconnect import CancelOnDisconnect
from app.http.middleware import BodyLimit, Context, Faults, Pace, Shield, Visitors
from app.idempotency import header as idempotency_header
from app.jobs import routes as jobs
from app.metrics import routes as measured
from app.metrics.middleware import Meter
from app.metrics.routes import Metrics
from app.predictions import routes as predictions
from app.registry import routes as registry
from app.resources import open_resources
from app.serving import info, shadow_routes
from app.serving import routes as serving
from app.serving.load_shedding import Gate
from app.serving.metrics import ServingMeters
from app.settings import Settings
from app.storage import routes as artifacts
from app.storage.permissions import keep_private
from app.sweeps import routes as sweeps
from app.web import routes

PUBLIC = (*health.router.routes, *routes.PUBLIC)
DESCRIPTION = "Fine-tune text classifiers with LoRA, watch them learn, and ask them."
FORM_BYTES = 65_536  # what a form adds to the file in it

log = structlog.get_logger()


def create_app(settings: Settings | None = None) -> FastAPI:
    """Wire the application. Nothing is opened before it starts."""
    settings = settings or Settings()
    metrics = Metrics()
    app = FastAPI(
        title="loraworks",
        description=DESCRIPTION,
        version=lora_core.__version__,
        lifespan=_lifespan,
        openapi_url=None,  # app.http.openapi serves these, behind the same door as the rest
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=error_responses.RESPONSES,
        routes=_router(settings).routes,
        middleware=[
            Middleware(Context),
            Middleware(Meter, meters=metrics.requests),
            Middleware(Shield),
            Middleware(Faults),
            Middleware(Visitors, settings=settings),
            Middleware(  # no credentials: a page sends its key itself
                CORSMiddleware,
                allow_origins=settings.allowed_origins,
                allow_methods=error_responses.METHODS,
                allow_headers=("*",),
                expose_headers=("*",),
            ),
            Middleware(Faults),  # once more, so that pages can read why the doors below refuse
            Middleware(AuthMiddleware, keys=settings.auth == "on", public=PUBLIC),
            Middleware(Gate, routes=tuple(serving.router.routes)),
            Middleware(CancelOnDisconnect),
            Middleware(Pace, bytes_per_second=settings.min_body_bytes_per_second),
            Middleware(BodyLimit, limit=settings.max_body_bytes),
        ],
    )
    app.state.settings = settings
    app.state.metrics = metrics
    app.state.serving_meters = ServingMeters(metrics.registry)
    app.state.vitals = health.Vitals(patience_seconds=health.PATIENCE_SECONDS)
    app.state.leaving = threading.Event()  # set by whoever stops the process
    error_responses.install(app)
    idempotency_header.install(app)
    routes.install(app)
    return app


def _router(settings: Settings) -> APIRouter:
    return _shared_router(settings.max_upload_bytes, settings.max_import_bytes)


@cache
def _shared_router(upload_bytes: int, import_bytes: int) -> APIRouter:
    """One for the applications of a process: what their first requests work out stays known."""
    router = APIRouter(responses=error_responses.RESPONSES)
    include = router.include_router
    include(serving.router)  # first, because routes are tried in this order
    include(jobs.router)
    include(datasets.router, max_body_size=upload_bytes + FORM_BYTES)
    include(artifacts.router)
    include(registry.router)
    include(info.router)
    include(shadow_routes.router)
    include(registry.importing, max_body_size=import_bytes + FORM_BYTES)
    include(predictions.router)
    include(sweeps.router)
    include(charts.router)
    include(health.router)
    include(measured.router)
    include(openapi.router)
    for pages in routes.PAGES:
        include(pages)
    return router


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open what the routes need. Refuses to start on a schema that is not the code's."""
    settings: Settings = app.state.settings
    logging.configure(settings.log_level)
    keep_private()
    log.info("open_files", limit=raise_file_limit())
    with ExitStack() as opened:
        try:
            resources = open_resources(settings)
            opened.callback(resources.close)
            migrations.check(resources.database)
            if settings.auth == "on":
                ring = app.state.key_ring = ApiKeyCache(
                    resources.database,
                    load_pepper(settings),
                    session_seconds=settings.session_days * 86_400,
                    idle_seconds=settings.session_idle_days * 86_400,
                )
                opened.callback(ring.close)
        except AppError as error:
            log.error("not_started", code=error.code, reason=str(error))
            raise
        app.state.resources = resources
        app.state.work_slots = WorkSlots(settings)
        async with _router(settings).lifespan_context(app):  # those of all that it includes
            yield
