"""The form of a sweep: what is typed into it, as the body of the API, and back.

A field is named by its place in the body. `MORE` has a line for each field of a job that has no
input of its own: FIELD=VALUES, as `--over` takes it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, get_args
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import RedirectResponse, Response

from app.auth.middleware import requires
from app.charts.fields import OBJECTIVES
from app.database.base import JsonObject
from app.http.dependencies import DatabaseDep, SettingsDep, StoreDep
from app.http.fields import id_or
from app.jobs import base_models
from app.sweeps import planning, repository, search_space
from app.sweeps.errors import SweepNotFound
from app.sweeps.presets import PRESETS, PresetName
from app.sweeps.schemas import SweepCreate
from app.sweeps.strategies import Strategy
from app.sweeps.tables import Sweep
from app.sweeps.trials import REFUSALS
from app.web import choices, snippets, sweep_form
from app.web.page import render
from lora_core.errors.base import BaseError
from lora_core.errors.data import DataError
from lora_core.specs.method import MethodName
from lora_core.specs.presets import Preset
from lora_core.specs.validation import faults

Typed = Mapping[str, str]

MORE = "more"
SPACE = "space."
SOURCE = "job.data.source"
TRAIN_FIGURES = "job.result.train_figures"  # no option says it
# Place in the body → option of the command line.
TEXTS = {
    SOURCE: "--data",
    "job.base": "--base",
    "job.method.type": "--method",
    "job.preset": "--preset",
    "strategy.type": "--strategy",
    "objective": "--objective",
    "name": "--name",
}
NUMBERS = {
    "job.data.train_size": "--train-size",
    "job.data.validation_size": "--validation-size",
    "job.data.test_size": "--test-size",
    "job.data.max_length": "--max-length",
    "job.optim.epochs": "--epochs",
    "job.optim.batch_size": "--batch-size",
    "strategy.cells": "--cells",
    "strategy.seed": "--search-seed",
    "strategy.eta": "--eta",
    "strategy.first_share": "--first-share",
    "strategy.keep": "--keep",
    "strategy.validation_texts": "--validation-texts",
    "strategy.batch": "--batch",
    "parallel": "--parallel",
    "priority": "--priority",
}
OPTIONS = TEXTS | NUMBERS
DEFAULTS = {"job.method.type": "lora", "strategy.type": "grid", "objective": "accuracy"}
# Fields of a job with inputs of their own: each may vary.
OVER = (
    *("method.alpha", "method.r", "method.targets", "method.C"),
    *("optim.learning_rate", "runtime.seed"),
)
STRATEGIES: Mapping[str, tuple[str, ...]] = {
    kind.model_fields["type"].default: tuple(kind.model_fields)
    for kind in get_args(get_args(Strategy)[0])
}
# Of a job: what a sweep decides itself, or what goes without saying.
UNSAID = {"spec_version", "trial", "result.model"}


@dataclass(frozen=True)
class Reading:
    """What was typed. `faults`: what is wrong with a field, under "" with none of them."""

    body: JsonObject
    faults: dict[str, str] = field(default_factory=dict)


def said(typed: Typed) -> dict[str, str]:
    """What is typed outside of the space. Settings of another strategy say nothing."""
    known = STRATEGIES.get(typed.get("strategy.type") or "grid", ("type",))
    return {
        place: text
        for place in (*OPTIONS, TRAIN_FIGURES)
        if (text := typed.get(place, "").strip())
        if not place.startswith("strategy.") or place.partition(".")[2] in known
    }


def over(typed: Typed, fields: Sequence[str] = OVER) -> list[tuple[str, str, str]]:
    """(field, values, where they are typed). The field is empty in a line that cannot be read."""
    own = [(name, typed.get(f"{SPACE}{name}", "").strip(), f"{SPACE}{name}") for name in fields]
    lines = (line.partition("=") for line in typed.get(MORE, "").splitlines() if line.strip())
    more = [(name.strip() if equals else "", text.strip(), MORE) for name, equals, text in lines]
    return [each for each in own if each[1]] + more


def read(typed: Typed) -> Reading:
    """The body of POST /v1/sweeps. Fields that are left empty say nothing."""
    body: JsonObject = {"job": {"method": {"type": "lora"}}}
    for place, text in said(typed).items():
        plain = place in TEXTS and not (place == SOURCE and text.startswith("{"))
        _put(body, place, text if plain else search_space.value(text))
    body["space"], wrong = read_space(typed)
    if not (body["space"] or wrong):
        wrong[""] = "Nothing varies yet. Give a field some values, such as 2, 4, 8 for r."
    return Reading(body, wrong)


def read_space(typed: Typed, fields: Sequence[str] = OVER) -> tuple[JsonObject, dict[str, str]]:
    """Values or range by field, and what is wrong with them by where it is typed."""
    space: JsonObject = {}
    wrong: dict[str, str] = {}
    for name, text, where in over(typed, fields):
        try:
            if not (name and text):
                raise ValueError("a line is FIELD=VALUES, such as method.head=train,lora")
            if name in space:
                raise ValueError(f"{name} stands here twice")
            space[name] = search_space.read(name, text)
        except ValueError as error:
            wrong[where] = str(error)
    return space, wrong


def invalid(error: ValidationError, kind: type[BaseModel]) -> dict[str, str]:
    """What is wrong with a body, by field."""
    found: dict[str, str] = {}
    for fault in faults(error.errors(include_url=False), kind):
        where = _field(fault.at)
        own = where not in ("", MORE)
        found.setdefault(where, fault.message if own else f"{fault.at}: {fault.message}")
    return found


def refused(error: Exception) -> dict[str, str]:
    """Why a body that fits could not run, by field."""
    detail: Mapping[str, Any] = getattr(error, "detail", {})
    at = str(detail.get("at", ""))
    if isinstance(error, DataError):
        at = SOURCE
    elif isinstance(error, BaseError):
        at = "job.base"
    elif "field" in detail:
        at = f"{SPACE}{detail['field']}"
    elif "reason" in detail:  # of a cell, which begins with the place in the job
        own = _field(f"{SPACE}{str(detail['reason']).partition(':')[0]}")
        at = at if own == MORE else own
    return {_field(at) or _field(f"job.{at}"): str(error)}


def written(body: Mapping[str, Any]) -> dict[str, str]:
    """What would have to be typed for this body. A field with one value does not vary."""
    typed, lines = {"strategy.type": "grid"}, []
    space = {
        place.removeprefix("job."): [value]
        for place, value in _leaves(body)
        if place.startswith("job.") and place not in (*OPTIONS, TRAIN_FIGURES)
    }
    for place, value in _leaves(body):
        if place in OPTIONS or place == TRAIN_FIGURES:
            typed[place] = search_space.text(value)
    for name, values in {**space, **body["space"]}.items():
        told = search_space.written(name, values)
        if name in OVER:
            typed[f"{SPACE}{name}"] = told
        elif name not in UNSAID:
            lines.append(f"{name}={told}")
    return {**typed, MORE: "\n".join(lines)}


def _field(at: str) -> str:
    """The input that says what stands at this place of a body; empty: there is none."""
    for name in (*OPTIONS, *(f"{SPACE}{name}" for name in OVER)):
        if at == name or at.startswith(f"{name}."):
            return name
    return MORE if at.startswith(SPACE) else ""


def _put(body: JsonObject, place: str, value: Any) -> None:
    *path, name = place.split(".")
    for part in path:
        body = body.setdefault(part, {})
    body[name] = value


def _leaves(part: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in part.items():
        place = f"{before}{name}"
        if place in ("space", "metadata") or value is None:
            continue
        if isinstance(value, Mapping) and place != SOURCE:
            yield from _leaves(value, f"{place}.")
        else:
            yield place, value


# MERGED app.web.sweep_form
# The form of a new sweep. Its address holds what is typed, and the page says what that means.

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
        sources, names = choices.sources(session, settings), choices.bases(session, settings)
    return render(
        request,
        "new_sweep.html",
        typed=typed,
        body=reading.body,
        plan=plan,
        faults=faults,
        curl=snippets.curl(request, "POST", "/v1/sweeps", reading.body),
        command=snippets.sweep_start(request, typed, reading.body),
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
