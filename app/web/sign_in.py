"""Sign-in with an API key, for browsers.

The key becomes a session (`app.auth.api_key_cache`). Its token goes into a cookie that no script
can read, that no other site can make the browser send, and that is good for reading only. Requests
that change something need the page token too, which only the response to the sign-in contains.
"""

from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from app.auth import secrets
from app.auth.api_key_cache import ApiKeyCache
from app.auth.middleware import COOKIE, TLS_COOKIE, session_token
from app.errors import Unauthorized
from app.web.page import render

router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
async def ask(request: Request, next: Annotated[str, Query(max_length=2000)] = "/") -> Response:
    """The form."""
    if request.app.state.settings.auth == "off":
        return RedirectResponse("/", 303)
    return render(request, "sign_in.html", next=_ours(next), error=None)


@router.post("/sign-in")
async def sign_in(
    request: Request,
    key: Annotated[str, Form(max_length=200)],
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    """Check the key, and go where the person wanted to."""
    if request.app.state.settings.auth == "off":
        return RedirectResponse("/", 303)
    ring: ApiKeyCache = request.app.state.key_ring
    try:
        token = await ring.sign_in(secrets.parse(key.strip()))
    except Unauthorized as error:
        return render(request, "sign_in.html", status=401, next=_ours(next), error=str(error))
    page_token = ring.page_token(token)
    answer = render(request, "signed_in.html", next=_ours(next), token=page_token)
    tls = request.headers.get("origin", "").startswith("https:")  # TLS ends before us
    answer.set_cookie(
        TLS_COOKIE if tls else COOKIE,
        token.text,
        max_age=round(request.app.state.settings.session_days * 86_400),
        secure=tls,
        httponly=True,
        samesite="strict",
    )
    answer.delete_cookie("loraworks_key", httponly=True, samesite="strict")  # once held the key
    return answer


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """End the session. Needs none, so that nobody is kept in."""
    if request.app.state.settings.auth == "on":
        with suppress(Unauthorized):
            if token := session_token(request):
                await request.app.state.key_ring.sign_out(token)
    answer = RedirectResponse("/sign-in", 303)
    for name in (COOKIE, TLS_COOKIE):
        answer.delete_cookie(name, secure=name == TLS_COOKIE, httponly=True, samesite="strict")
    return answer


def _ours(address: str) -> str:
    """An address of this service; anything else would send people away after their sign-in."""
    inside = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if inside and address.isprintable() else "/"
