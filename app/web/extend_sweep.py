"""The form that adds values to a sweep's search space, or trials to a sampled search."""

from functools import partial

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.charts.fields import field_labels
from app.database.base import JsonObject
from app.http.dependencies import DatabaseDep, SettingsDep, StoreDep
from app.jobs import base_models
from app.jobs.resolve import JobResolver
from app.sweeps import planning, repository, search_space, service
from app.sweeps.routes import SweepId
from app.sweeps.schemas import SweepExtend
from app.sweeps.search_space import SearchSpace
from app.sweeps.trials import RESOLVE_ERRORS
from app.web import snippets, sweep_form
from app.web.page import render
from app.web.sweeps import sweep_name

router = APIRouter(include_in_schema=False)


@router.get("/sweeps/{sweep_id}/extend", dependencies=[require_scope("jobs:write")])
def extend_sweep_page(
    request: Request,
    sweep_id: SweepId,
    database: DatabaseDep,
    store: StoreDep,
    settings: SettingsDep,
) -> HTMLResponse:
    """Show the form, and how many trials it would add. The query string holds the input."""
    values = dict(request.query_params)
    with database.read() as session:
        sweep = repository.get(session, sweep_id)
        trial_count = len(repository.trial_settings(session, sweep_id))
    space = SearchSpace.from_pairs(sweep.space)
    body, errors = _parse(values, space.fields)
    added = None
    if body and not errors:
        find = partial(base_models.resolve_base, database=database, store=store, settings=settings)
        try:
            extension = SweepExtend.model_validate(body)
            plan = service.plan_extension(
                database, sweep_id=sweep_id, body=extension, find_base=find
            )
            with database.read() as session:
                planning.resolve_trials(plan, JobResolver(session, settings))
            added = plan.trial_count
        except ValidationError as error:
            errors = sweep_form.validation_errors(error, SweepExtend)
        except RESOLVE_ERRORS as error:
            errors = {"": str(error)}
    dimensions = space.model_dump(mode="json")["dimensions"]
    return render(
        request,
        "extend_sweep.html",
        sweep=sweep,
        name=sweep_name(sweep),
        trial_count=trial_count,
        is_sampled=sweep.strategy.get("cells") is not None,
        fields=[
            (field, label, search_space.format_values(field, dimensions[field]).replace(",", ", "))
            for field, label in field_labels(space.fields).items()
        ],
        values=values,
        body=body,
        errors=errors,
        added=added,
        curl=snippets.curl(request, "POST", f"/v1/sweeps/{sweep_id}/extend", body),
        command=snippets.sweep_extend(request, sweep_id, values, space.fields),
    )


def _parse(values: dict[str, str], fields: tuple[str, ...]) -> tuple[JsonObject, dict[str, str]]:
    """Return the request body, empty without input, and the errors by input."""
    space, errors = sweep_form.parse_space(values, fields)
    body: JsonObject = {"space": space} if space else {}
    if trial_count := values.get("cells", "").strip():
        body["cells"] = search_space.parse_value(trial_count)
    return body, errors
