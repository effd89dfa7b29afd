"""Request counts and durations, as ASGI middleware.

Labels have low cardinality: the route's path template, and the class of the status code.
"""

import time

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from starlette.types import ASGIApp, Message, Receive, Scope, Send

KNOWN_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # seconds


class RequestMetrics:
    """The counter and the histogram of requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # the `_created` series are not used
        self.requests = Counter(
            "loraworks_http_requests",
            "Requests; status is the class, such as 2xx, or none if the client disconnected.",
            ("method", "route", "status"),
            registry=registry,
        )
        self.duration_seconds = Histogram(
            "loraworks_http_request_duration_seconds",
            "Time to the end of the response; a stream lasts until the client closes it.",
            ("method", "route"),
            buckets=DURATION_BUCKETS,
            registry=registry,
        )


class RequestMetricsMiddleware:
    """ASGI middleware that measures every request, including rejected ones."""

    def __init__(self, app: ASGIApp, *, metrics: RequestMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = "none"  # the client disconnected first

        async def record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = f"{message['status'] // 100}xx"
            await send(message)

        started = time.perf_counter()
        try:
            await self.app(scope, receive, record_status)
        finally:
            method = scope["method"] if scope["method"] in KNOWN_METHODS else "other"
            route = getattr(scope.get("route"), "path", "none")
            elapsed = time.perf_counter() - started
            self.metrics.requests.labels(method, route, status).inc()
            self.metrics.duration_seconds.labels(method, route).observe(elapsed)
