"""Render pages from Jinja2 templates, and parse the query strings of list pages.

Autoescaping is on: user input is always rendered as text.
"""

import hashlib
import time
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
from fastapi import Request
from pydantic import BaseModel, BeforeValidator
from starlette.responses import HTMLResponse, RedirectResponse, Response

import lora_core
from app.http.dependencies import Caller
from app.http.error_responses import ProblemDetails
from app.http.pagination import PageCursor
from app.web import assets, formats

# Charts are downloaded as `blob:` images and drawn from `data:` images.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'"
)
TEMPLATES_DIR = Path(__file__).with_name("templates")


def render_template(
    request: Request, template: str, *, status: int = 200, etag: str | None = None, **context: Any
) -> HTMLResponse:
    """Render a template. `context` holds the template's variables; `etag`: see `page_etag`."""
    caller: Caller | None = request.scope.get("state", {}).get("caller")  # None: a public page
    html = (
        _environment()
        .get_template(template)
        .render(
            path=request.url.path,
            caller=caller,
            signed_in=caller is not None and caller.signed_in,
            version=lora_core.__version__,
            **context,
        )
    )
    # Without a referrer, browsers send `Origin: null` with a form, which is rejected as
    # cross-origin.
    headers = {
        "Content-Security-Policy": CONTENT_SECURITY_POLICY,
        "Referrer-Policy": "same-origin",
        **({} if etag is None else {"ETag": etag}),
    }
    return HTMLResponse(html, status, headers=headers)


def page_etag(request: Request, caller: Caller, *revision: object) -> str:
    """Return the ETag of a page whose content follows from `revision`, its URL and its reader.

    `live.js` fetches pages every two seconds: with an ETag, only the content that changed is read
    from the database. It changes every minute, because pages show how many minutes ago things were.
    """
    parts = (
        lora_core.__version__,
        str(request.url),
        caller.id,
        sorted(caller.scopes),
        _minute(),
        *revision,
    )
    return f'"{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}"'


def _minute() -> int:
    return int(time.time() // 60)


def not_modified_response(request: Request, etag: str) -> Response | None:
    """Return the response 304 if the browser has this version of a page already.

    A proxy that compresses pages marks their ETags as weak.
    """
    if request.headers.get("If-None-Match", "").removeprefix("W/") != etag:
        return None
    return Response(status_code=304, headers={"ETag": etag})


def render_error_or_redirect(request: Request, problem: ProblemDetails) -> Response:
    """Render an error as a page. Unauthenticated visitors are redirected to sign in."""
    if problem.status == 401:
        destination = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/sign-in?next={quote(destination)}", 303)
    response = render_template(request, "error.html", status=problem.status, problem=problem)
    response.headers.update(problem.headers)
    return response


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES_DIR),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    environment.filters.update(formats.FILTERS)
    environment.globals["plotly"] = assets  # a global, because macros do not see the context
    return environment


# Browsers submit an empty form field as "".
BlankAsNone = BeforeValidator(lambda text: text or None)


class ListPageQuery(BaseModel):
    """The query string of a list page. Subclasses add the filters."""

    after: PageCursor = None

    @property
    def first_page_query(self) -> str:
        """Return the query string of the first page with the same filters."""
        filters: dict[str, Any] = self.model_dump(
            mode="json", exclude={"after"}, exclude_defaults=True
        )
        return urlencode(filters)
