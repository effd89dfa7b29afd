"""The form of a new sweep: convert form values to an API request body or a command, and back.

An input is named by the path of its field in the body. The input `OTHER_FIELDS_INPUT` has one line,
FIELD=VALUES as `--over` takes it, for each job field that has no input of its own.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import Annotated, Any, get_args
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ValidationError
from starlette.responses import RedirectResponse, Response

from app.auth.middleware import check_scope, require_scope
from app.database.base import JsonObject
from app.http.dependencies import CallerDep, DatabaseDep, SettingsDep, StoreDep
from app.http.fields import uuid_or_not_found_validator
from app.jobs.pretrained_bases import build_base_resolver
from app.sweeps import planning, repository, search_space
from app.sweeps.errors import SweepNotFound
from app.sweeps.schemas import SweepCreate
from app.sweeps.search_space import PRESETS, PresetName
from app.sweeps.states import Objective
from app.sweeps.strategies import Strategy
from app.sweeps.tables import Sweep
from app.sweeps.trials import RESOLVE_ERRORS
from app.web import form_options
from app.web.curl import cli_url_option, curl_command
from app.web.page import render_template
from lora_core.errors.base_model import BaseModelError
from lora_core.errors.data import DataError
from lora_core.specs.method import LayerRole, MethodName
from lora_core.specs.task import ClassWeights, LossName, TaskType
from lora_core.specs.train import Preset
from lora_core.specs.validation_problems import field_problems

FormValues = Mapping[str, str]  # input name -> text

OTHER_FIELDS_INPUT = "more"  # input name
SPACE_PREFIX = "space."
SOURCE_FIELD = "job.data.source"
_TARGETS_FIELD = "job.task.targets"
_TEXT_OR_OBJECT = (SOURCE_FIELD, _TARGETS_FIELD)  # one input holds either; the object as JSON
_TRAIN_METRICS = "job.result.train_metrics"  # has no command-line option
# Path in the body -> command-line option. Values of the first are text, of the second JSON.
_TEXT_OPTIONS = {
    SOURCE_FIELD: "--data",
    "job.base": "--base",
    "job.method.type": "--method",
    "job.task.type": "--task",
    _TARGETS_FIELD: "--targets",
    "job.task.class_weights": "--class-weights",
    "job.task.loss": "--loss",
    "job.data.label_separator": "--label-separator",
    "job.preset": "--preset",
    "strategy.type": "--strategy",
    "objective": "--objective",
    "name": "--name",
}
_JSON_OPTIONS = {
    "job.data.train_size": "--train-size",
    "job.data.validation_size": "--validation-size",
    "job.data.test_size": "--test-size",
    "job.data.max_length": "--max-length",
    "job.task.focal_gamma": "--focal-gamma",
    "job.task.tune_thresholds": "--tune-thresholds",
    "job.optim.epochs": "--epochs",
    "job.optim.batch_size": "--batch-size",
    "strategy.trials": "--trials",
    "strategy.seed": "--search-seed",
    "strategy.eta": "--eta",
    "strategy.min_budget": "--min-budget",
    "strategy.min_full_runs": "--min-full-runs",
    "strategy.validation_texts": "--validation-texts",
    "strategy.batch": "--batch",
    "max_parallel_jobs": "--max-parallel-jobs",
    "priority": "--priority",
}
OPTIONS = _TEXT_OPTIONS | _JSON_OPTIONS
_DEFAULTS = {"job.method.type": "lora", "strategy.type": "grid"}
# Job fields that may vary and have an input of their own.
_SPACE_FIELDS = (
    *("method.alpha", "method.r", "method.targets", "method.C"),
    *("optim.learning_rate", "runtime.seed"),
)
STRATEGY_FIELDS: Mapping[str, tuple[str, ...]] = {
    strategy.model_fields["type"].default: tuple(strategy.model_fields)
    for strategy in get_args(get_args(Strategy)[0])
}
# Job fields that a sweep sets itself.
_SET_BY_SWEEP = {"spec_version", "trial", "result.model"}
# What the empty form shows.
_EXAMPLE = {
    "job.data.source": "rotten-tomatoes",
    "job.data.train_size": "4000",
    "space.method.alpha": "8,16,32",
    "space.method.r": "2,4,8",
    "strategy.type": "grid",
}

router = APIRouter(include_in_schema=False)


@router.get("/sweeps/new", dependencies=[require_scope("jobs:write")])
def new_sweep_page(  # noqa: PLR0913 - parameters are the request's inputs
    request: Request,
    database: DatabaseDep,
    store: StoreDep,
    settings: SettingsDep,
    caller: CallerDep,
    like: Annotated[
        Annotated[UUID, uuid_or_not_found_validator(lambda text: SweepNotFound(sweep_id=text))]
        | None,
        Query(),
    ] = None,
    preset: PresetName | None = None,
) -> Response:
    """Show the form with its plan. The query string holds the input.

    Without input the form shows an example. `like` and `preset` redirect to a filled form.
    """
    if preset is not None:
        return _redirect_to_form(PRESETS[preset])
    if like is not None:
        check_scope(caller, "jobs:read")
        with database.read() as session:
            return _redirect_to_form(_request_body(repository.get_sweep(session, like)))
    values = dict(request.query_params)
    if "strategy.type" not in values:  # the form always sends it
        values = _EXAMPLE | values
    find = build_base_resolver(database, store, settings)
    form = parse_sweep_form(values)
    plan, errors = None, form.errors
    try:
        sweep = SweepCreate.model_validate(form.body)
        if not errors:
            trials = planning.plan_trials(sweep, find)
            with database.read() as session:
                plan = planning.preview_sweep(session, body=sweep, plan=trials, settings=settings)
    except ValidationError as error:
        errors = validation_errors_by_input(error, SweepCreate) | errors
    except RESOLVE_ERRORS as error:
        errors = planning_errors_by_input(error)
    with database.read() as session:
        data_sources = form_options.data_sources(session, settings, caller)
        base_model_names = form_options.base_models(session, settings, caller)
    return render_template(
        request,
        "new_sweep.html",
        values=values,
        body=form.body,
        plan=plan,
        errors=errors,
        curl=curl_command(request, "POST", "/v1/sweeps", form.body),
        command=build_sweep_start_command(request, values, form.body),
        objectives=get_args(Objective),
        # Without the default, and several targets, which have a field of their own.
        tasks=[each for each in get_args(TaskType)[1:] if each != "several_targets"],
        class_weights=list(ClassWeights),
        losses=list(LossName),
        roles=list(LayerRole),
        methods=get_args(MethodName),
        presets=list(Preset),
        data_sources=data_sources,
        base_models=base_model_names,
    )


def _redirect_to_form(body: Mapping[str, Any]) -> Response:
    return RedirectResponse(f"/sweeps/new?{urlencode(to_form_values(body))}", 303)


def _request_body(sweep: Sweep) -> Mapping[str, Any]:
    """Return the request body that would create this sweep."""
    return {
        "job": sweep.job,
        "space": dict(sweep.space),
        "strategy": sweep.strategy,
        "objective": sweep.objective,
        "name": sweep.name,
        "max_parallel_jobs": sweep.max_parallel_jobs,
        "priority": sweep.priority or None,
    }


# Form values to request body


@dataclass(frozen=True)
class ParsedForm:
    """A request body, and the errors by input name; "" holds errors that belong to no input."""

    body: JsonObject
    errors: dict[str, str] = field(default_factory=dict)


def parse_sweep_form(values: FormValues) -> ParsedForm:
    """Return the body of POST /v1/sweeps. Empty inputs are left out."""
    body: JsonObject = {"job": {"method": {"type": "lora"}}}
    for path, text in list_fixed_inputs(values).items():
        is_text = path in _TEXT_OPTIONS and not (path in _TEXT_OR_OBJECT and text.startswith("{"))
        _set(body, path, text if is_text else search_space.parse_json_or_text(text))
    body["space"], errors = parse_space(values)
    if not (body["space"] or errors):
        errors[""] = "No field varies. Give a field several values, such as 2, 4, 8 for r."
    return ParsedForm(body, errors)


def list_fixed_inputs(values: FormValues) -> dict[str, str]:
    """Return the nonempty values outside the search space, without other strategies' fields."""
    strategy_fields = STRATEGY_FIELDS.get(values.get("strategy.type") or "grid", ("type",))
    return {
        path: text
        for path in (*OPTIONS, _TRAIN_METRICS)
        if (text := values.get(path, "").strip())
        if not path.startswith("strategy.") or path.partition(".")[2] in strategy_fields
    }


def list_space_inputs(
    values: FormValues, fields: Sequence[str] = _SPACE_FIELDS
) -> list[tuple[str, str, str]]:
    """Return (field, values, input name) of the search space.

    The field is empty for a line of `OTHER_FIELDS_INPUT` without an equals sign.
    """
    own = [
        (name, values.get(f"{SPACE_PREFIX}{name}", "").strip(), f"{SPACE_PREFIX}{name}")
        for name in fields
    ]
    lines = (
        line.partition("=")
        for line in values.get(OTHER_FIELDS_INPUT, "").splitlines()
        if line.strip()
    )
    others = [
        (name.strip() if equals else "", text.strip(), OTHER_FIELDS_INPUT)
        for name, equals, text in lines
    ]
    return [each for each in own if each[1]] + others


def parse_space(
    values: FormValues, fields: Sequence[str] = _SPACE_FIELDS
) -> tuple[JsonObject, dict[str, str]]:
    """Return the search space by field, and the errors by input name."""
    space: JsonObject = {}
    errors: dict[str, str] = {}
    for name, text, input_name in list_space_inputs(values, fields):
        try:
            if not (name and text):
                raise ValueError("a line is FIELD=VALUES, such as method.head=train,lora")
            if name in space:
                raise ValueError(f"{name} is given twice")
            space[name] = search_space.parse_values_or_range(name, text)
        except ValueError as error:
            errors[input_name] = str(error)
    return space, errors


def validation_errors_by_input(error: ValidationError, model: type[BaseModel]) -> dict[str, str]:
    """Return the problems of an invalid body by input name."""
    errors: dict[str, str] = {}
    for problem in field_problems(error.errors(include_url=False), model):
        input_name = _input_for(problem.at)
        has_own_input = input_name not in ("", OTHER_FIELDS_INPUT)
        errors.setdefault(
            input_name, problem.message if has_own_input else f"{problem.at}: {problem.message}"
        )
    return errors


def planning_errors_by_input(error: Exception) -> dict[str, str]:
    """Return why a valid body cannot run, by input name."""
    detail: Mapping[str, Any] = getattr(error, "detail", {})
    path = str(detail.get("at", ""))
    if isinstance(error, DataError):
        path = SOURCE_FIELD
    elif isinstance(error, BaseModelError):
        path = "job.base"
    elif "field" in detail:
        path = f"{SPACE_PREFIX}{detail['field']}"
    elif "reason" in detail:  # of a trial; starts with the path in the job
        own = _input_for(f"{SPACE_PREFIX}{str(detail['reason']).partition(':')[0]}")
        path = path if own == OTHER_FIELDS_INPUT else own
    return {_input_for(path) or _input_for(f"job.{path}"): str(error)}


def _input_for(path: str) -> str:
    """Return the name of the input for a path in the body, or "" if there is none."""
    for name in (*OPTIONS, *(f"{SPACE_PREFIX}{name}" for name in _SPACE_FIELDS)):
        if path == name or path.startswith(f"{name}."):
            return name
    return OTHER_FIELDS_INPUT if path.startswith(SPACE_PREFIX) else ""


def _set(body: JsonObject, path: str, value: Any) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        body = body.setdefault(parent, {})
    body[name] = value


# Request body to form values


def to_form_values(body: Mapping[str, Any]) -> dict[str, str]:
    """Return the form values for a body. Job fields without an input become one-value fields."""
    values, lines = {"strategy.type": "grid"}, []
    constants = {
        path.removeprefix("job."): [value]
        for path, value in _leaves(body)
        if path.startswith("job.") and path not in (*OPTIONS, _TRAIN_METRICS)
    }
    for path, value in _leaves(body):
        if path in OPTIONS or path == _TRAIN_METRICS:
            values[path] = search_space.format_value(value)
    for name, options in {**constants, **body["space"]}.items():
        text = search_space.format_values_or_range(name, options)
        if name in _SPACE_FIELDS:
            values[f"{SPACE_PREFIX}{name}"] = text
        elif name not in _SET_BY_SWEEP:
            lines.append(f"{name}={text}")
    return {**values, OTHER_FIELDS_INPUT: "\n".join(lines)}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if path in ("space", "metadata") or value is None:
            continue
        if isinstance(value, Mapping) and path not in _TEXT_OR_OBJECT:
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


# -- Commands that do what the form would do -------------------------------------------------------


def build_sweep_start_command(request: Request, values: Mapping[str, str], body: JsonObject) -> str:
    """Return `loraworks sweep start …`; with a file if an option is missing for some field."""
    command = f"loraworks sweep start{cli_url_option(request)}"
    source = body["job"].get("data", {}).get("source")
    if "result" in body["job"] or isinstance(source, dict):
        content = json.dumps(body, ensure_ascii=False)
        return f"{command} --file sweep.json\n# sweep.json: {content}"
    return " \\\n  ".join([command, *_start_options(values)])


def build_sweep_extend_command(
    request: Request, sweep_id: object, values: Mapping[str, str], fields: Sequence[str]
) -> str:
    """Return `loraworks sweep extend …`."""
    options = list(_over_options(values, fields))
    if trial_count := values.get("trials", "").strip():
        options.append(f"--trials {quote(trial_count)}")
    return " \\\n  ".join([f"loraworks sweep extend{cli_url_option(request)} {sweep_id}", *options])


def _start_options(values: Mapping[str, str]) -> Iterator[str]:
    for path, text in list_fixed_inputs(values).items():
        if _DEFAULTS.get(path) != text:
            yield OPTIONS[path] if text == "true" else f"{OPTIONS[path]} {quote(text)}"
    yield from _over_options(values, _SPACE_FIELDS)


def _over_options(values: Mapping[str, str], fields: Sequence[str]) -> Iterator[str]:
    for name, text, _ in list_space_inputs(values, fields):
        short = name.rpartition(".")[2].replace("_", "-")
        option = short if name in _SPACE_FIELDS else name
        yield f"--over {quote(f'{option}={text}')}"
