"""Middleware that rejects predictions at capacity before they are routed and read.

Under overload most requests end here. Each of them takes the interpreter lock from the threads that
compute, so rejections must be cheap: after routing they take twice as long.
"""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.serving.service import InferenceService, parse_timeout


class LoadSheddingMiddleware:
    """Rejects predictions early when the server is at capacity.

    `routes` are those that run a model.
    """

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises `ServerOverloaded`, `KeyOverloaded` and `InvalidTimeout`."""
        if scope["type"] == "http" and (route := self._matching_route(scope)) is not None:
            service: InferenceService = scope["app"].state.serving
            scope["route"] = route  # labels a rejection in the request metrics
            headers = Headers(scope=scope)
            content_length = headers.get("content-length", "")
            body_bytes = int(content_length) if content_length.isdecimal() else None
            timeout = parse_timeout(headers.get("x-request-timeout"))
            service.check_capacity(scope["state"]["caller"].id, body_bytes, timeout=timeout)
        await self.app(scope, receive, send)

    def _matching_route(self, scope: Scope) -> BaseRoute | None:
        return next((r for r in self.routes if r.matches(scope)[0] is Match.FULL), None)
