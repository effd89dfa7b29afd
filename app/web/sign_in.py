"""Sign-in with an API key, for browsers.

The key goes into a cookie that no script can read, that no other site can make the browser send,
and that is good for reading alone (`app.keys.auth`). Nothing is stored here: who revokes the key
ends the sign-in.
"""

from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from app.errors import Unauthorized
from app.keys import secret
from app.keys.auth import COOKIE
from app.keys.ring import KeyRing
from app.web.page import render

MONTH = 30 * 86_400  # seconds

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
    ring: KeyRing = request.app.state.key_ring
    try:
        await ring.caller(secret.parse(key.strip()))
    except Unauthorized as error:
        return render(request, "sign_in.html", status=401, next=_ours(next), error=str(error))
    answer = RedirectResponse(_ours(next), 303)
    answer.set_cookie(
        COOKIE,
        key.strip(),
        max_age=MONTH,
        secure=request.headers.get("origin", "").startswith("https:"),  # TLS ends before us
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/sign-out")
async def sign_out() -> Response:
    """Forget the key. Needs none, so that nobody is kept in."""
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return answer


def _ours(address: str) -> str:
    """An address of this service; anything else would send people away after their sign-in."""
    inside = address.startswith("/") and not address.startswith(("//", "/\\"))
    return address if inside and address.isprintable() else "/"
