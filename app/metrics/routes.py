"""`/metrics` in the text format of Prometheus."""

from functools import partial

from fastapi import APIRouter, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from starlette.responses import PlainTextResponse

from app.auth.middleware import requires
from app.database.single_flight import Lookups
from app.http.dependencies import DatabaseDep, SettingsDep
from app.metrics.database import DOWN, Counted, TablesCollector, count
from app.metrics.middleware import RequestMeters

PATIENCE_SECONDS = 5.0  # Prometheus gives up after 10

router = APIRouter(tags=["health"], dependencies=[requires("metrics:read")])


class Metrics:
    """What one application measures: itself, its requests, and, when asked, the tables."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = RequestMeters(self.registry)
        self.lookups: Lookups[None, Counted] = Lookups(patience_seconds=PATIENCE_SECONDS)
        for kind in (ProcessCollector, PlatformCollector, GCCollector):
            kind(registry=self.registry)


@router.get("/metrics", response_class=PlainTextResponse)
async def read_metrics(request: Request, database: DatabaseDep, settings: SettingsDep) -> Response:
    """Queue, attempts, workers, devices and storage as the tables know them; process, requests."""
    metrics: Metrics = request.app.state.metrics
    look = partial(count, database, lease_seconds=settings.lease_seconds)
    counted = await metrics.lookups.ask(None, look, standby=DOWN)
    text = generate_latest(TablesCollector(counted)) + generate_latest(metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
