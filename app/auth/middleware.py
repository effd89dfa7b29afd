"""Authentication and authorization. Requests are denied by default.

Authentication runs before routing, so that it also covers paths that no route matches, other
methods, and bodies that a route would read first. Public routes are a list of route objects,
matched the way the router matches them, rather than path strings.
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
from app.auth.authenticator import Authenticator
from app.auth.errors import CsrfTokenInvalid, KeyMalformed, KeyMissing, ScopeMissing, SessionInvalid
from app.auth.tables import ALL_SCOPES, LOCAL_KEY_ID
from app.auth.tables import Scope as KeyScope
from app.errors import Unauthorized
from app.http.dependencies import Caller, get_app_state, get_caller

SESSION_COOKIE = "loraworks_session"  # HttpOnly: no script can read it
SECURE_SESSION_COOKIE = f"__Host-{SESSION_COOKIE}"  # no other host and no plain HTTP can set it
CSRF_TOKEN_HEADER = "x-page-token"  # noqa: S105 - a header name, not a secret
SAFE_METHODS = frozenset({"GET", "HEAD"})
LOCAL_CALLER = Caller(id=LOCAL_KEY_ID, name="local", scopes=frozenset(ALL_SCOPES))
_BEARER_SCHEME = HTTPBearer(
    scheme_name="key", bearerFormat="lw_<id>_<secret>", auto_error=False, description="An API key."
)


class AuthMiddleware:
    """ASGI middleware that sets `request.state.caller`, or raises a subclass of `Unauthorized`."""

    def __init__(
        self, app: ASGIApp, *, keys_required: bool, public_routes: Sequence[BaseRoute]
    ) -> None:
        self.app = app
        self.keys_required = keys_required
        self.public_routes = public_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not self._is_public(scope):
            caller = LOCAL_CALLER
            if self.keys_required:
                caller = await authenticate(HTTPConnection(scope))
                structlog.contextvars.bind_contextvars(key_id=str(caller.id))
            scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)

    def _is_public(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self.public_routes)


async def authenticate(request: HTTPConnection) -> Caller:
    """Return the caller of the request's API key or session.

    Raises subclasses of `Unauthorized`.
    """
    authenticator = get_app_state(request.app).authenticator
    headers = request.headers.getlist("authorization")
    is_of_proxy = len(headers) == 1 and headers[0].strip().lower().startswith("basic ")
    if not headers or (
        is_of_proxy
        and (CSRF_TOKEN_HEADER in request.headers or parse_session_cookie(request) is not None)
    ):
        return await authenticator.authenticate_session(
            _csrf_checked_session(request, authenticator)
        )
    scheme, _, text = headers[0].strip().partition(" ")
    if len(headers) > 1 or scheme.lower() != "bearer":
        raise KeyMalformed(problem="but the header has a different form")
    return await authenticator.authenticate_key(secrets.parse_api_key(text.strip()))


def parse_session_cookie(request: HTTPConnection) -> secrets.Token | None:
    """Return the session token of the cookie, if there is one. Raises `SessionInvalid`."""
    cookie = request.cookies.get(SECURE_SESSION_COOKIE) or request.cookies.get(SESSION_COOKIE)
    return secrets.parse_session_token(cookie) if cookie else None


def _csrf_checked_session(request: HTTPConnection, authenticator: Authenticator) -> secrets.Token:
    """Return the browser's session, after checking its CSRF token unless the request only reads.

    Cookies ignore ports: the browser sends this cookie to every service on the same host name, and
    pages elsewhere can make the browser send requests with it. So every other method requires a
    token that only the sign-in response contains.

    Raises `KeyMissing`, `SessionInvalid`, `CsrfTokenInvalid`.
    """
    session = parse_session_cookie(request)
    sent_token = request.headers.get(CSRF_TOKEN_HEADER, "")
    if session is None:  # browsers delete the cookie of a session that has ended
        raise SessionInvalid() if sent_token else KeyMissing()
    if request.scope.get("method") not in SAFE_METHODS and not compare_digest(
        sent_token.encode(), authenticator.csrf_token(session).encode()
    ):
        raise CsrfTokenInvalid()
    return session


async def is_still_authenticated(request: Request) -> bool:
    """Return whether the credentials of a request in progress are still valid.

    Cheap enough to call often: most calls use the cache.
    """
    if get_caller(request.scope) is LOCAL_CALLER:
        return True
    try:
        await authenticate(request)
    except Unauthorized:
        return False
    return True


async def _check_scopes(
    needed: SecurityScopes, request: Request, _: Any = Depends(_BEARER_SCHEME)
) -> None:
    for scope in needed.scopes:
        check_scope(get_caller(request.scope), scope)


async def check_any_scope(
    sufficient: SecurityScopes, request: Request, _: Any = Depends(_BEARER_SCHEME)
) -> None:
    """Raise `ScopeMissing` unless the API key of the caller has one of these scopes."""
    caller = get_caller(request.scope)
    if caller.scopes.isdisjoint(sufficient.scopes):
        raise ScopeMissing(name=caller.name, scope=" or ".join(sufficient.scopes))


def check_scope(caller: Caller, scope: str) -> None:
    """Raise `ScopeMissing` unless the API key of the caller has this scope."""
    if scope not in caller.scopes:
        raise ScopeMissing(name=caller.name, scope=scope)


def require_scope(scope: KeyScope) -> Any:
    """Return a dependency that admits only callers with this scope, for `dependencies=[…]`."""
    return Security(_check_scopes, scopes=[scope])


def require_any_scope(*scopes: KeyScope) -> Any:
    """Return a dependency that admits callers with at least one of these scopes."""
    return Security(check_any_scope, scopes=list(scopes))
