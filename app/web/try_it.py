"""A text box with the answer as one types. The page lists the models; its script asks them."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import requires
from app.http.dependencies import DatabaseDep
from app.http.fields import Text
from app.web import choices
from app.web.page import render

router = APIRouter(include_in_schema=False)
Ref = Annotated[Annotated[str, Text(200)] | None, Query()]


@router.get("/try", dependencies=[requires("models:read")])
def try_it(
    request: Request, database: DatabaseDep, model: Ref = None, beside: Ref = None
) -> HTMLResponse:
    """Two models side by side; at the first visit, how to get one."""
    with database.read() as session:
        models = choices.versions(session)
    known = [choice.ref for choices in models.values() for choice in choices]
    return render(
        request,
        "try_it.html",
        models=models,
        chosen=model if model in known else next(iter(known), None),
        beside=beside if beside in known else None,
        unknown=[each for each in (model, beside) if each and each not in known],
    )
