"""The route `/metrics`, in Prometheus' text format."""

from functools import partial

from fastapi import APIRouter, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from starlette.responses import PlainTextResponse

from app.auth.middleware import require_scope
from app.database.single_flight import SingleFlight
from app.http.dependencies import AppStateDep, DatabaseDep, SettingsDep
from app.metrics.database import (
    UNAVAILABLE,
    DatabaseCollector,
    DatabaseMetrics,
    DatabaseMetricsReader,
)
from app.metrics.event_loop import create_event_loop_lag_histogram
from app.metrics.middleware import RequestMetrics

QUERY_TIMEOUT_SECONDS = 5.0  # Prometheus times out after 10 s

router = APIRouter(tags=["health"], dependencies=[require_scope("metrics:read")])


class MetricsRegistry:
    """The metrics of one application: process, requests and, per scrape, the database."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = RequestMetrics(self.registry)
        self.event_loop_lag = create_event_loop_lag_histogram(self.registry)
        self.query = DatabaseMetricsReader()  # runs in `single_flight` only
        self.single_flight: SingleFlight[None, DatabaseMetrics] = SingleFlight(
            timeout_seconds=QUERY_TIMEOUT_SECONDS
        )
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)


@router.get("/metrics", response_class=PlainTextResponse)
async def get_metrics(state: AppStateDep, database: DatabaseDep, settings: SettingsDep) -> Response:
    """Return metrics of queue, attempts, workers, devices, storage, process and requests."""
    metrics = state.metrics
    query = partial(metrics.query.read, database, lease_seconds=settings.lease_seconds)
    database_metrics = await metrics.single_flight.run(None, query, fallback=UNAVAILABLE)
    text = generate_latest(DatabaseCollector(database_metrics))
    text += generate_latest(state.metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
