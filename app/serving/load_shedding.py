"""Turns questions away that find no room, before they are routed and read.

Under overload most requests end here. Each of them takes the interpreter from the threads that
compute, so it must be cheap: past this door a refusal takes twice as long.
"""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.serving.service import Serving, request_timeout


class Gate:
    """ASGI middleware before the routes that ask a model."""

    def __init__(self, app: ASGIApp, *, routes: Sequence[BaseRoute]) -> None:
        self.app = app
        self.routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Raises `Busy`, `KeyBusy` and `InvalidTimeout`."""
        if scope["type"] == "http" and (asked := self._asked(scope)) is not None:
            serving: Serving = scope["app"].state.serving
            scope["route"] = asked  # the name under which a refusal is counted
            headers = Headers(scope=scope)
            told = headers.get("content-length", "")
            size = int(told) if told.isdecimal() else None
            timeout = request_timeout(headers.get("x-request-timeout"))
            serving.refuse_if_full(scope["state"]["caller"].id, size, timeout=timeout)
        await self.app(scope, receive, send)

    def _asked(self, scope: Scope) -> BaseRoute | None:
        return next((r for r in self.routes if r.matches(scope)[0] is Match.FULL), None)
