"""The form of a new sweep. Its address holds what is typed, and the page says what that means."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, get_args
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from app.auth.middleware import requires
from app.charts.fields import OBJECTIVES
from app.http.dependencies import DatabaseDep, SettingsDep, StoreDep
from app.http.fields import id_or
from app.jobs import base_models
from app.sweeps import planning, repository
from app.sweeps.errors import SweepNotFound
from app.sweeps.presets import PRESETS, PresetName
from app.sweeps.schemas import SweepCreate
from app.sweeps.tables import Sweep
from app.sweeps.trials import REFUSALS
from app.web import offered, spoken, sweep_form
from app.web.page import render
from lora_core.specs.method import MethodName
from lora_core.specs.presets import Preset

FIRST = {
    "job.data.source": "rotten-tomatoes",
    "job.data.train_size": "4000",
    "space.method.alpha": "8,16,32",
    "space.method.r": "2,4,8",
    "strategy.type": "grid",
}

router = APIRouter(include_in_schema=False)


@router.get("/sweeps/new", dependencies=[requires("jobs:write")])
def new_sweep(
    request: Request,
    database: DatabaseDep,
    store: StoreDep,
    settings: SettingsDep,
    like: Annotated[
        Annotated[UUID, id_or(lambda text: SweepNotFound(sweep_id=text))] | None, Query()
    ] = None,
    preset: PresetName | None = None,
) -> Response:
    """A form with an example in it, one like another sweep, or a preset."""
    if preset is not None:
        return _filled(PRESETS[preset])
    if like is not None:
        with database.read() as session:
            return _filled(_body(repository.get(session, like)))
    typed = dict(request.query_params)
    if "strategy.type" not in typed:  # nobody has sent the form
        typed = FIRST | typed
    find = partial(base_models.find, database=database, store=store, settings=settings)
    reading = sweep_form.read(typed)
    plan, faults = None, reading.faults
    try:
        sent = SweepCreate.model_validate(reading.body)
        if not faults:
            laid = planning.lay_out(sent, find)
            with database.read() as session:
                plan = planning.plan(session, body=sent, laid=laid, settings=settings)
    except ValidationError as error:
        faults = sweep_form.invalid(error, SweepCreate) | faults
    except REFUSALS as error:
        faults = sweep_form.refused(error)
    with database.read() as session:
        sources, names = offered.sources(session, settings), offered.bases(session, settings)
    return render(
        request,
        "new_sweep.html",
        typed=typed,
        body=reading.body,
        plan=plan,
        faults=faults,
        curl=spoken.curl(request, "POST", "/v1/sweeps", reading.body),
        command=spoken.sweep_start(request, typed, reading.body),
        strategies=list(sweep_form.STRATEGIES),
        objectives=list(OBJECTIVES),
        methods=get_args(MethodName),
        presets=list(Preset),
        sources=sources,
        bases=names,
    )


def _filled(body: Mapping[str, Any]) -> Response:
    return RedirectResponse(f"/sweeps/new?{urlencode(sweep_form.written(body))}", 303)


def _body(sweep: Sweep) -> Mapping[str, Any]:
    """What was sent to start it."""
    return {
        "job": sweep.job,
        "space": dict(sweep.space),
        "strategy": sweep.strategy,
        "objective": sweep.objective,
        "name": sweep.name,
        "parallel": sweep.parallel,
        "priority": sweep.priority or None,
    }
