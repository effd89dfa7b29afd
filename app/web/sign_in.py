"""Browser sign-in with an API key.

The key is exchanged for a session (`app.auth.authenticator`). Its token is stored in a cookie that
is HttpOnly, SameSite=Strict and read-only: requests that change something also need the CSRF token,
which only the sign-in response contains.
"""

from typing import Annotated

import structlog
from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from app.auth import secrets
from app.auth.middleware import SECURE_SESSION_COOKIE, SESSION_COOKIE, parse_session_cookie
from app.errors import Unauthorized
from app.http.dependencies import AppStateDep
from app.web.page import render_template

router = APIRouter(include_in_schema=False)

log = structlog.get_logger()


@router.get("/sign-in")
async def sign_in_page(
    request: Request, state: AppStateDep, next: Annotated[str, Query(max_length=2000)] = "/"
) -> Response:
    """Show the form."""
    if state.settings.auth == "off":
        return RedirectResponse("/", 303)
    return render_template(request, "sign_in.html", next=_local_path(next), error=None)


@router.post("/sign-in")
async def sign_in(
    request: Request,
    state: AppStateDep,
    key: Annotated[str, Form()] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    """Check the key, start a session and redirect to `next`."""
    if state.settings.auth == "off":
        return RedirectResponse("/", 303)
    cache = state.authenticator
    try:
        token = await cache.sign_in(secrets.parse_api_key(key.strip()))
    except Unauthorized as error:
        return render_template(
            request, "sign_in.html", status=401, next=_local_path(next), error=str(error)
        )
    csrf_token = cache.csrf_token(token)
    response = render_template(request, "signed_in.html", next=_local_path(next), token=csrf_token)
    tls = request.headers.get("origin", "").startswith("https:")  # TLS may terminate at a proxy
    response.set_cookie(
        SECURE_SESSION_COOKIE if tls else SESSION_COOKIE,
        token.text,
        max_age=round(state.settings.session_days * 86_400),
        secure=tls,
        httponly=True,
        samesite="strict",
    )
    # Older versions stored the key in this cookie.
    response.delete_cookie("loraworks_key", httponly=True, samesite="strict")
    return response


@router.post("/sign-out")
async def sign_out(request: Request, state: AppStateDep) -> Response:
    """End the session. Works without a session, too, so that signing out never fails."""
    if state.settings.auth == "on":
        try:
            if token := parse_session_cookie(request):
                await state.authenticator.sign_out(token)
        except Unauthorized:
            pass
        except Exception:  # such as an outage of the database: the browser may be shared
            log.exception("sign_out_failed")
    response = RedirectResponse("/sign-in", 303)
    for name in (SESSION_COOKIE, SECURE_SESSION_COOKIE):
        response.delete_cookie(
            name, secure=name == SECURE_SESSION_COOKIE, httponly=True, samesite="strict"
        )
    return response


def _local_path(path: str) -> str:
    """Return the path if it is on this service, else "/": prevents open redirects."""
    is_local = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if is_local and path.isprintable() else "/"
