"""What happens to every request before and after its route, as plain ASGI.

From the outside in: `Context` (request id, access log), `metrics.requests.Meter`, `Shield` (headers
that protect browsers), `Faults` (errors become answers), `Visitors` (Host, Origin, Sec-Fetch-Site),
Starlette's `CORSMiddleware`, `Faults` again, `keys.auth.Door`, `serving.gate.Gate`,
`disconnect.CancelOnDisconnect`, `Pace` (of the body), and `BodyLimit`; those with a path stand
elsewhere. No `BaseHTTPMiddleware`: behind one a route never learns that its client left.
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

from app.errors import BodyLengthUnclear, CrossSiteRefused, HostRefused, OriginRefused
from app.http.error_responses import respond
from app.settings import Settings
from lora_core.rust_panics import contained

PATIENCE_SECONDS = 30.0  # with a body of any size
CSP = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
FOREIGN_SITES = ("cross-site", "same-site")  # the same site may be another port or name
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOST = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", re.IGNORECASE)
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

log = structlog.get_logger()


class Context:
    """Gives each request an id, in the log and in `X-Request-Id`, and logs that it was served."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = Headers(scope=scope).get("x-request-id", "")
        request_id = sent if _REQUEST_ID.fullmatch(sent) else uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        started = time.perf_counter()
        # A request that follows on the same connection may begin with what this one was about.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self.app(scope, receive, note)
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


class Shield:
    """Headers that tell browsers what not to do. A route may set its own value."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def protect(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Referrer-Policy", "no-referrer")
                headers.setdefault("Content-Security-Policy", CSP)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, protect)


class Faults:
    """Errors that no handler took: refusals of the doors, and the unexpected."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            with contained():
                await self.app(scope, receive, watch)
        except Exception as error:
            if started or scope["type"] != "http":
                raise  # too late for an answer: the server closes the connection
            await respond(scope, error)(scope, receive, send)


class Visitors:
    """Refuses foreign Host and Origin headers, so that web pages elsewhere cannot reach in, and
    requests of unclear length.

    This holds with keys off too: a page that rebinds its own name to 127.0.0.1 would else be let
    in. Browsers send no Origin with images, scripts and the like, but `Sec-Fetch-Site`, which no
    page can change: of what other sites ask for, only going here by a link is let in.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self.app = app
        self.hosts = _lower((*_LOOPBACK, _bracketed(settings.host), *settings.allowed_hosts))
        self.origins = _lower(settings.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            if "content-length" in headers and "transfer-encoding" in headers:
                raise BodyLengthUnclear()
            hosts = headers.getlist("host")
            named = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
            if named is None or named["name"].lower() not in self.hosts:
                raise HostRefused()
            for origin in headers.getlist("origin"):
                scheme, _, rest = origin.lower().partition("://")
                own = scheme in ("http", "https") and rest == hosts[0].lower()
                if not own and origin.lower() not in self.origins:
                    raise OriginRefused()
            if headers.get("sec-fetch-site") in FOREIGN_SITES and not (
                headers.get("origin", "").lower() in self.origins or _goes_here(scope, headers)
            ):
                raise CrossSiteRefused()
        await self.app(scope, receive, send)


class BodyLimit:
    """Starlette's limit of the body, answering in the dialect of the route.

    A route with `max_body_size` of its own is held to that instead.
    """

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self.app = RequestBodyLimitMiddleware(app, max_body_size=limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        replaced = False

        async def translate(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] == 413:
                plain = Headers(raw=message["headers"]).get("content-type", "").startswith("text/")
                if plain:  # Starlette's own words
                    replaced = True
                    await respond(scope, HTTPException(413))(scope, receive, send)
            if not replaced:
                await send(message)

        await self.app(scope, receive, translate)


class Pace:
    """Refuses a body that comes too slowly: uvicorn would wait for the rest for ever.

    Only the waiting counts, not what a route does with the bytes.
    """

    def __init__(self, app: ASGIApp, *, bytes_per_second: float) -> None:
        self.app = app
        self.rate = bytes_per_second

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        left: float | None = PATIENCE_SECONDS  # None: all has come

        async def hurry() -> Message:
            nonlocal left
            began = time.monotonic()
            try:
                async with asyncio.timeout(left):
                    message = await receive()
            except TimeoutError:  # closed, or the rest would come as the next request
                raise HTTPException(408, headers={"Connection": "close"}) from None
            if left is not None:
                left += len(message.get("body", b"")) / self.rate - (time.monotonic() - began)
                left = left if message.get("more_body") else None
            return message

        await self.app(scope, hurry if scope["type"] == "http" else receive, send)


def _goes_here(scope: Scope, headers: Headers) -> bool:
    """Whether a person follows a link, in a tab of its own and not in a frame."""
    mode, target = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest", "document")
    return scope.get("method") == "GET" and (mode, target) == ("navigate", "document")


def _lower(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


def _bracketed(host: str) -> str:
    """An IPv6 address as it stands in a Host header."""
    return f"[{host}]" if ":" in host else host
