"""Who calls, and whether they may. Every request passes here before it is routed: deny by default.

The door stands before routing, so that it also covers what no route matches, other methods, and
bodies that would be read first. What is open without a key is a list of route objects, matched as
the router matches them, never text compared with the path.
"""

from collections.abc import Sequence
from hmac import compare_digest
from typing import Any

import structlog
from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer, SecurityScopes
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.auth import secrets
from app.auth.api_key_cache import ApiKeyCache
from app.auth.errors import KeyMalformed, KeyMissing, PageTokenMissing, ScopeMissing
from app.auth.scopes import ALL_SCOPES
from app.auth.scopes import Scope as KeyScope
from app.auth.tables import LOCAL_KEY_ID
from app.errors import Unauthorized
from app.http.dependencies import Caller

COOKIE = "loraworks_session"  # of a browser that is signed in; no script can read it
TLS_COOKIE = f"__Host-{COOKIE}"  # which no other host and no plain HTTP can set
PAGE_TOKEN = "x-page-token"  # noqa: S105 - the name of a header
SAFE = frozenset({"GET", "HEAD"})
LOCAL = Caller(id=LOCAL_KEY_ID, name="local", scopes=frozenset(ALL_SCOPES))
_BEARER = HTTPBearer(
    scheme_name="key", bearerFormat="lw_<id>_<secret>", auto_error=False, description="An API key."
)


class AuthMiddleware:
    """ASGI middleware: puts the caller into the request, or raises the cause of refusal."""

    def __init__(self, app: ASGIApp, *, keys: bool, public: Sequence[BaseRoute]) -> None:
        self.app = app
        self.keys = keys
        self.public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not self._is_public(scope):
            caller = LOCAL
            if self.keys:
                caller = await authenticate(HTTPConnection(scope))
                structlog.contextvars.bind_contextvars(key_id=str(caller.id))
            scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)

    def _is_public(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self.public)


async def authenticate(request: HTTPConnection) -> Caller:
    """The caller whose key or session the request carries. Raises a kind of `Unauthorized`."""
    ring: ApiKeyCache = request.app.state.key_ring
    sent = request.headers.getlist("authorization")
    if not sent:
        return await ring.reader(_signed_in(request, ring))
    scheme, _, text = sent[0].strip().partition(" ")
    if len(sent) > 1 or scheme.lower() != "bearer":
        raise KeyMalformed(problem="but the header has another form")
    return await ring.caller(secrets.parse(text.strip()))


def session_token(request: HTTPConnection) -> secrets.Token | None:
    """The token in the cookie of a browser that signed in. Raises `SessionEnded`."""
    sent = request.cookies.get(TLS_COOKIE) or request.cookies.get(COOKIE)
    return secrets.parse_session(sent) if sent else None


def _signed_in(request: HTTPConnection, ring: ApiKeyCache) -> secrets.Token:
    """The session of a browser, for reading.

    Cookies know no ports: every service on this host name is sent ours, and a page elsewhere can
    make the browser call with it. So all else takes a token that only the answer to the sign-in
    holds. Raises `KeyMissing`, `SessionEnded`, `PageTokenMissing`.
    """
    session = session_token(request)
    if session is None:
        raise KeyMissing()
    shown = request.headers.get(PAGE_TOKEN, "")
    if request.scope.get("method") not in SAFE and not compare_digest(
        shown.encode(), ring.page_token(session).encode()
    ):
        raise PageTokenMissing()
    request.state.signed_in = True
    return session


async def still_good(request: Request) -> bool:
    """Whether the key of a call under way would be let in again. Asked often, looked up rarely."""
    if request.state.caller is LOCAL:
        return True
    try:
        await authenticate(request)
    except Unauthorized:
        return False
    return True


async def _allow(needed: SecurityScopes, request: Request, _: Any = Depends(_BEARER)) -> None:
    for scope in needed.scopes:
        check_scope(request.state.caller, scope)


def check_scope(caller: Caller, scope: str) -> None:
    """For what a body asks for, beyond what its route needs. Raises `ScopeMissing`."""
    if scope not in caller.scopes:
        raise ScopeMissing(name=caller.name, scope=scope)


def requires(scope: KeyScope) -> Any:
    """For `dependencies=[…]` of a route: only callers with this scope get in."""
    return Security(_allow, scopes=[scope])
