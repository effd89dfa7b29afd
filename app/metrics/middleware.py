"""Counts and durations of requests, as plain ASGI.

Labels take few values: a route is known by its template, a status by its class.
"""

import time

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # seconds


class RequestMeters:
    """The counter and the histogram."""

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # nobody reads these series
        self.count = Counter(
            "loraworks_http_requests",
            "Requests that were answered; status is the class, such as 2xx, or none.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.seconds = Histogram(
            "loraworks_http_request_duration_seconds",
            "Time to the end of the answer; a stream lasts as long as it is followed.",
            ("method", "route"),
            buckets=BUCKETS,
            registry=registry,
        )


class Meter:
    """ASGI middleware that measures every request, refused ones too."""

    def __init__(self, app: ASGIApp, *, meters: RequestMeters) -> None:
        self.app = app
        self.meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = "none"  # the client left first

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = f"{message['status'] // 100}xx"
            await send(message)

        began = time.perf_counter()
        try:
            await self.app(scope, receive, note)
        finally:
            method = scope["method"] if scope["method"] in METHODS else "other"
            route = getattr(scope.get("route"), "path", "none")
            self.meters.count.labels(method, route, status).inc()
            self.meters.seconds.labels(method, route).observe(time.perf_counter() - began)
