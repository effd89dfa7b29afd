"""The "Try it" page. It lists the models; its script requests predictions while typing."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.http.dependencies import DatabaseDep
from app.http.fields import CleanText
from app.web import choices
from app.web.page import render

router = APIRouter(include_in_schema=False)
ModelRefQuery = Annotated[Annotated[str, CleanText(200)] | None, Query()]


@router.get("/try", dependencies=[require_scope("models:read")])
def try_it_page(
    request: Request,
    database: DatabaseDep,
    model: ModelRefQuery = None,
    beside: ModelRefQuery = None,
) -> HTMLResponse:
    """Show one or two models side by side. Without any model, show how to get one."""
    with database.read() as session:
        options = choices.model_options(session)
    refs = [option.ref for model_options in options.values() for option in model_options]
    return render(
        request,
        "try_it.html",
        model_options=options,
        selected=model if model in refs else next(iter(refs), None),
        compared=beside if beside in refs else None,
        unknown_refs=[ref for ref in (model, beside) if ref and ref not in refs],
    )
