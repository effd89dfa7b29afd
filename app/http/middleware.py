"""ASGI middleware for every request.

`app.main.create_app` lists the stack, from the outside in. None of it is a `BaseHTTPMiddleware`,
which hides a client's disconnect from the route.
"""

import asyncio
import re
import time
from collections.abc import Iterable
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import (
    ContentLengthWithTransferEncoding,
    CrossSiteRequestBlocked,
    HostNotAllowed,
    OriginNotAllowed,
    ShuttingDown,
)
from app.http.error_responses import log_and_build_error_response
from app.settings import Settings
from lora_core.rust_panics import convert_panics

BODY_GRACE_SECONDS = 30.0  # for any body, before the minimum rate applies
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
_OTHER_ORIGIN_SITES = ("cross-site", "same-site")  # same-site includes other ports and subdomains
_REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST_PATTERN = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", re.IGNORECASE)
_LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
# Orchestrators send the address of the moment as Host. A page can use nothing of these responses.
_PROBE_PATHS = ("/livez", "/readyz", "/health", "/ping")

log = structlog.get_logger()


class RequestIdMiddleware:
    """Gives each request an id, in the log and in `X-Request-Id`, and writes the access log."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent_id = Headers(scope=scope).get("x-request-id", "")
        request_id = sent_id if _REQUEST_ID_PATTERN.fullmatch(sent_id) else uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        started = time.perf_counter()
        # The context of the previous request on this connection may still be bound.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self.app(scope, receive, send_with_id)
        finally:
            caller = state.get("caller")
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                milliseconds=round((time.perf_counter() - started) * 1000, 1),
                caller=caller.name if caller else None,
            )


class SecurityHeadersMiddleware:
    """Adds security headers to every response. A value that a route set is kept."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
                headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, send_with_headers)


class ErrorMiddleware:
    """Responds to errors without an exception handler: those of middleware, and unexpected ones.

    It also responds to a request that a stopping server cancels after the grace period.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def track_start(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            with convert_panics():
                await self.app(scope, receive, track_start)
        except (Exception, asyncio.CancelledError) as error:
            if started or scope["type"] != "http":
                raise  # too late for a response: the server closes the connection
            if isinstance(error, asyncio.CancelledError):
                error = ShuttingDown()
            await log_and_build_error_response(scope, error)(scope, receive, send)


class HostOriginMiddleware:
    """Rejects foreign Host and Origin headers, cross-site requests, and ambiguous body lengths.

    This also applies when API keys are off: otherwise a page could get in with DNS rebinding, by
    resolving its own host name to 127.0.0.1. Browsers send no Origin with images, scripts and the
    like, but they send `Sec-Fetch-Site`, which no page can change. The only cross-site requests
    that pass are top-level navigations, such as following a link, and those of allowed origins.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self.app = app
        self.hosts = _lowercase_set(
            (*_LOOPBACK_HOSTS, _host_header_name(settings.host), *settings.allowed_hosts)
        )
        self.origins = _lowercase_set(settings.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            if "content-length" in headers and "transfer-encoding" in headers:
                raise ContentLengthWithTransferEncoding()
            hosts = headers.getlist("host")
            match = _HOST_PATTERN.fullmatch(hosts[0]) if len(hosts) == 1 else None
            if match is None or not (
                match["name"].lower() in self.hosts or scope["path"] in _PROBE_PATHS
            ):
                raise HostNotAllowed()
            for origin in headers.getlist("origin"):
                scheme, _, rest = origin.lower().partition("://")
                is_own = scheme in ("http", "https") and rest == hosts[0].lower()
                if not is_own and origin.lower() not in self.origins:
                    raise OriginNotAllowed()
            if headers.get("sec-fetch-site") in _OTHER_ORIGIN_SITES and not (
                headers.get("origin", "").lower() in self.origins
                or _is_top_level_navigation(scope, headers)
            ):
                raise CrossSiteRequestBlocked()
        await self.app(scope, receive, send)


class BodyLimitMiddleware:
    """Starlette's body limit, with the error response format of the route.

    A route's own `max_body_size` takes precedence.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self.app = RequestBodyLimitMiddleware(app, max_body_size=max_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        replaced = False

        async def replace_plain_413(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] == 413:
                content_type = Headers(raw=message["headers"]).get("content-type", "")
                if content_type.startswith("text/"):  # Starlette's own response
                    replaced = True
                    await log_and_build_error_response(scope, HTTPException(413))(
                        scope, receive, send
                    )
            if not replaced:
                await send(message)

        await self.app(scope, receive, replace_plain_413)


class SlowBodyMiddleware:
    """Rejects a body that arrives too slowly, because uvicorn would wait for it forever.

    Only the time spent waiting for bytes counts, not the time that a route spends on them.
    """

    def __init__(self, app: ASGIApp, *, bytes_per_second: float) -> None:
        self.app = app
        self.bytes_per_second = bytes_per_second

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        seconds_left: float | None = BODY_GRACE_SECONDS  # None: the body is complete

        async def receive_in_time() -> Message:
            nonlocal seconds_left
            started = time.monotonic()
            try:
                async with asyncio.timeout(seconds_left):
                    message = await receive()
            except TimeoutError:  # close it, or the rest would be read as the next request
                raise HTTPException(408, headers={"Connection": "close"}) from None
            if seconds_left is not None:
                earned = len(message.get("body", b"")) / self.bytes_per_second
                seconds_left += earned - (time.monotonic() - started)
                seconds_left = seconds_left if message.get("more_body") else None
            return message

        await self.app(scope, receive_in_time if scope["type"] == "http" else receive, send)


def _is_top_level_navigation(scope: Scope, headers: Headers) -> bool:
    """Return whether this is a navigation of a whole tab, such as following a link, not a frame."""
    mode, target = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest", "document")
    return scope.get("method") == "GET" and (mode, target) == ("navigate", "document")


def _lowercase_set(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


def _host_header_name(host: str) -> str:
    """Return the host as in a Host header: an IPv6 address has brackets there."""
    return f"[{host}]" if ":" in host else host
