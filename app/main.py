"""The FastAPI application: `uvicorn --factory app.main:create_app`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import cache

import structlog
from fastapi import APIRouter, FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

import lora_core
from app import logging
from app.auth.authenticator import Authenticator
from app.auth.middleware import AuthMiddleware, check_any_scope
from app.auth.secrets import load_or_create_pepper
from app.base_models import routes as bases
from app.charts import routes as charts
from app.database import migrations
from app.datasets import routes as datasets
from app.drift import routes as drift
from app.errors import AppError
from app.feedback import routes as feedback
from app.http import error_responses, health, openapi
from app.http.concurrency import CancellationMiddleware, ConcurrencyLimiters
from app.http.connections import raise_open_file_limit
from app.http.dependencies import AppState, get_app_state
from app.http.middleware import (
    BodyLimitMiddleware,
    ErrorMiddleware,
    HostOriginMiddleware,
    RequestIdMiddleware,
    SecurityHeadersMiddleware,
    SlowBodyMiddleware,
)
from app.idempotency import header as idempotency_header
from app.jobs import routes as jobs
from app.jobs.event_stream import EventStreamPoller
from app.label_review import routes as label_review
from app.labeling import routes as labeling
from app.labeling.pools import LabelingPools
from app.metrics import routes as metrics_routes
from app.metrics.event_loop import record_event_loop_lag
from app.metrics.middleware import RequestMetricsMiddleware
from app.metrics.routes import MetricsRegistry
from app.mistral import classifications as mistral_classifications
from app.mistral import files as mistral_files
from app.mistral import fine_tuning_routes as mistral_fine_tuning
from app.mistral import models as mistral_models
from app.mlflow import routes as mlflow
from app.mlflow.connection import parse_mlflow_settings
from app.openai import completions as openai_completions
from app.openai import files as openai_files
from app.openai import fine_tuning_routes as openai_fine_tuning
from app.openai import models as openai_models
from app.openai import moderations as openai_moderations
from app.predictions import routes as predictions
from app.registry import routes as registry
from app.resources import open_resources
from app.retraining import routes as retraining
from app.serving import routes as serving
from app.serving.admission import LoadSheddingMiddleware
from app.serving.metrics import ServingMetrics
from app.serving.service import InferenceService
from app.serving.thread_priorities import raise_event_loop_priority
from app.settings import Settings
from app.storage import artifact_routes
from app.storage.data_dir import make_process_private
from app.sweeps import routes as sweeps
from app.text_erasure import routes as text_erasure
from app.traffic.recorder import TrafficRecorder
from app.web import page
from app.web import page_routers as web
from app.webhooks import routes as webhooks

MODEL_ROUTES = (  # they run a model
    *serving.router.routes,
    *openai_completions.router.routes,
    *openai_moderations.router.routes,
    *mistral_classifications.router.routes,
)
PUBLIC_ROUTES = (*health.router.routes, *web.PUBLIC_ROUTES)
DESCRIPTION = "Fine-tune text classifiers with LoRA, monitor their training, and serve them."
MULTIPART_OVERHEAD_BYTES = 65_536  # of a multipart form, on top of its file

log = structlog.get_logger()


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application. It opens no resources before startup."""
    settings = settings or Settings()
    metrics = MetricsRegistry()
    app = openapi.FastAPIWithErrorSchemas(
        title="loraworks",
        description=DESCRIPTION,
        version=lora_core.__version__,
        lifespan=_lifespan,
        openapi_url=None,  # app.http.openapi serves these, so that they need authentication too
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=openapi.operation_id,
        responses=error_responses.PROBLEM_RESPONSES,
        any_scope=check_any_scope,
        routes=_shared_router(settings.max_upload_bytes, settings.max_import_bytes).routes,
        middleware=[
            Middleware(RequestIdMiddleware),
            Middleware(RequestMetricsMiddleware, metrics=metrics.requests),
            Middleware(SecurityHeadersMiddleware),
            Middleware(ErrorMiddleware),
            Middleware(HostOriginMiddleware, settings=settings),
            Middleware(  # without allow_credentials: pages send their API key in a header
                CORSMiddleware,
                allow_origins=settings.allowed_origins,
                allow_methods=error_responses.HTTP_METHODS,
                allow_headers=("*",),
                expose_headers=("*",),
            ),
            # A second one inside CORS, so that pages can read the errors of the middleware below.
            Middleware(ErrorMiddleware),
            Middleware(
                AuthMiddleware, keys_required=settings.auth == "on", public_routes=PUBLIC_ROUTES
            ),
            Middleware(LoadSheddingMiddleware, routes=MODEL_ROUTES),
            Middleware(CancellationMiddleware),
            Middleware(SlowBodyMiddleware, bytes_per_second=settings.min_body_bytes_per_second),
            Middleware(BodyLimitMiddleware, max_bytes=settings.max_body_bytes),
        ],
    )
    app.state = AppState(  # type: ignore[assignment] # `get_app_state` returns it with its type
        settings=settings,
        metrics=metrics,
        serving_metrics=ServingMetrics(metrics.registry),
        readiness_checks=health.ReadinessChecks(timeout_seconds=health.CHECK_TIMEOUT_SECONDS),
        render_problem=page.render_error_or_redirect,
    )
    error_responses.add_exception_handlers(app)
    idempotency_header.add_replay_handler(app)
    return app


@cache
def _shared_router(upload_bytes: int, import_bytes: int) -> APIRouter:
    """Share one router among the apps of a process: each route caches its setup."""
    router = APIRouter(
        responses=error_responses.PROBLEM_RESPONSES,
        generate_unique_id_function=openapi.operation_id,
    )
    include = router.include_router
    include(serving.router)  # first, because routes are matched in this order
    include(openai_completions.router)
    include(openai_moderations.router)
    include(mistral_classifications.router)
    include(jobs.router)
    include(bases.router)
    include(datasets.router, max_body_size=upload_bytes + MULTIPART_OVERHEAD_BYTES)
    include(label_review.router)
    include(artifact_routes.router)
    include(registry.router)
    include(serving.info_router)
    include(serving.shadow_router)
    include(registry.import_router, max_body_size=import_bytes + MULTIPART_OVERHEAD_BYTES)
    include(feedback.router)
    include(drift.router)
    include(text_erasure.router)
    include(retraining.router)
    include(predictions.router)
    include(sweeps.router)
    include(labeling.router)
    include(charts.router)
    include(openai_models.router)
    include(webhooks.router)
    include(mlflow.router)
    include(openai_files.router, max_body_size=upload_bytes + MULTIPART_OVERHEAD_BYTES)
    include(openai_fine_tuning.router)
    include(mistral_models.router)
    include(mistral_files.router, max_body_size=upload_bytes + MULTIPART_OVERHEAD_BYTES)
    include(mistral_fine_tuning.router)
    include(health.router)
    include(metrics_routes.router)
    include(openapi.router)
    for page_router in web.PAGE_ROUTERS:
        include(page_router)
    return router


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Complete the `AppState`. Fails if the database schema does not match this version."""
    state = get_app_state(app)
    settings = state.settings
    logging.configure(settings.log_level)
    make_process_private()
    log.info("open_files", limit=raise_open_file_limit())
    log.info("event_loop", real_time=raise_event_loop_priority())
    with ExitStack() as exit_stack:
        try:
            parse_mlflow_settings(settings)  # used by workers only, but a mistake shows at once
            resources = state.resources = open_resources(settings)
            exit_stack.callback(resources.close)
            migrations.check_schema_revision(resources.database)
            if settings.auth == "on":
                state.authenticator = Authenticator(
                    resources.database,
                    load_or_create_pepper(settings),
                    session_seconds=settings.session_days * 86_400,
                    idle_seconds=settings.session_idle_seconds,
                )
                exit_stack.callback(state.authenticator.close)
        except AppError as error:
            log.error("not_started", code=error.code, reason=str(error))
            raise
        state.concurrency_limits = ConcurrencyLimiters(settings)
        state.streams = EventStreamPoller(
            resources.database,
            max_streams=settings.max_streams,
            max_streams_per_key=settings.max_streams_per_key,
        )
        state.traffic = TrafficRecorder(
            resources.database,
            settings,
            on_kept=state.serving_metrics.traffic_kept.inc,
            on_dropped=state.serving_metrics.traffic_dropped.inc,
        )
        exit_stack.callback(state.traffic.close)
        state.serving = InferenceService(
            resources, state.serving_metrics, with_scores=state.traffic.keeps_scores
        )
        exit_stack.callback(state.serving.close)
        state.labeling = LabelingPools(resources)
        exit_stack.callback(state.labeling.close)
        drop_deleted = asyncio.create_task(state.labeling.drop_deleted_regularly())
        exit_stack.callback(drop_deleted.cancel)
        state.check_servable = state.serving.pool.load
        lag = asyncio.create_task(record_event_loop_lag(state.metrics.event_loop_lag))
        exit_stack.callback(lag.cancel)
        yield
