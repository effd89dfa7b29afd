"""Pages made from templates, on the server. Whatever comes from users stands in them as text."""

from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
from fastapi import Request
from pydantic import BaseModel, BeforeValidator
from starlette.responses import HTMLResponse

import lora_core
from app.http.pagination import After
from app.web import assets, formats

# Pictures are saved from the page as `blob:` and drawn from `data:`.
CSP = (
    "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'self'"
)
TEMPLATES = Path(__file__).with_name("templates")


def render(request: Request, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
    """The page. `context` is what the template names."""
    state = request.scope.get("state", {})
    html = (
        _environment()
        .get_template(template)
        .render(
            path=request.url.path,
            caller=state.get("caller"),
            signed_in=state.get("signed_in", False),  # False, too, while keys are off
            version=lora_core.__version__,
            **context,
        )
    )
    # Without a referrer browsers send `Origin: null` with a form, which is refused as foreign.
    policies = {"Content-Security-Policy": CSP, "Referrer-Policy": "same-origin"}
    return HTMLResponse(html, status, headers=policies)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    environment.filters.update(formats.FILTERS)
    environment.globals["plotly"] = assets  # macros see no context
    return environment


# MERGED app.web.page
# What pages of lists have in common.

# A field of a form that was left empty says nothing.
Filled = BeforeValidator(lambda text: text or None)


class Wanted(BaseModel):
    """Which page of a list. What narrows the list stands in subclasses."""

    after: After = None

    @property
    def without_after(self) -> str:
        """The query of the first page."""
        said: dict[str, Any] = self.model_dump(
            mode="json", exclude={"after"}, exclude_defaults=True
        )
        return urlencode(said)
