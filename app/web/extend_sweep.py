"""More of a sweep: values for its fields, or cells of a strategy that draws them."""

from functools import partial

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import HTMLResponse

from app.auth.middleware import requires
from app.charts.fields import labels
from app.database.base import JsonObject
from app.http.dependencies import DatabaseDep, SettingsDep, StoreDep
from app.jobs import base_models
from app.jobs.resolve import Drafter
from app.sweeps import planning, repository, search_space, service
from app.sweeps.routes import SweepId
from app.sweeps.schemas import SweepExtend
from app.sweeps.search_space import Space
from app.sweeps.trials import REFUSALS
from app.web import snippets, sweep_form
from app.web.page import render
from app.web.sweeps import name

router = APIRouter(include_in_schema=False)


@router.get("/sweeps/{sweep_id}/extend", dependencies=[requires("jobs:write")])
def more_cells(
    request: Request,
    sweep_id: SweepId,
    database: DatabaseDep,
    store: StoreDep,
    settings: SettingsDep,
) -> HTMLResponse:
    """The form, and how many cells it would add."""
    typed = dict(request.query_params)
    with database.read() as session:
        sweep = repository.get(session, sweep_id)
        there = len(repository.settings(session, sweep_id))
    space = Space.of(sweep.space)
    body, faults = _read(typed, space.fields)
    added = None
    if body and not faults:
        find = partial(base_models.find, database=database, store=store, settings=settings)
        try:
            sent = SweepExtend.model_validate(body)
            laid = service.more(database, sweep_id=sweep_id, body=sent, find=find)
            with database.read() as session:
                planning.drafts(laid, Drafter(session, settings))
            added = laid.kept
        except ValidationError as error:
            faults = sweep_form.invalid(error, SweepExtend)
        except REFUSALS as error:
            faults = {"": str(error)}
    told = space.model_dump(mode="json")["dimensions"]
    return render(
        request,
        "more_cells.html",
        sweep=sweep,
        name=name(sweep),
        there=there,
        draws=sweep.strategy.get("cells") is not None,
        fields=[
            (field, label, search_space.written(field, told[field]).replace(",", ", "))
            for field, label in labels(space.fields).items()
        ],
        typed=typed,
        body=body,
        faults=faults,
        added=added,
        curl=snippets.curl(request, "POST", f"/v1/sweeps/{sweep_id}/extend", body),
        command=snippets.sweep_extend(request, sweep_id, typed, space.fields),
    )


def _read(typed: dict[str, str], fields: tuple[str, ...]) -> tuple[JsonObject, dict[str, str]]:
    """The body, empty while nothing is typed."""
    space, faults = sweep_form.read_space(typed, fields)
    body: JsonObject = {"space": space} if space else {}
    if cells := typed.get("cells", "").strip():
        body["cells"] = search_space.value(cells)
    return body, faults
