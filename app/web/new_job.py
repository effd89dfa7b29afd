"""The form of a new job. The API plans and submits what it sends."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.http.dependencies import DatabaseDep, SettingsDep
from app.http.fields import CleanText, uuid_or_raise
from app.jobs import repository
from app.jobs.errors import JobNotFound
from app.web import choices, display_names
from app.web.page import render
from lora_core.specs.data import Split
from lora_core.specs.method import LoraVariant, Role
from lora_core.specs.train import TrainSpec

router = APIRouter(include_in_schema=False)


@router.get("/jobs/new", dependencies=[require_scope("jobs:write")])
def new_job_page(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    data: Annotated[Annotated[str, CleanText(1024)] | None, Query()] = None,
    from_: Annotated[
        Annotated[UUID, uuid_or_raise(lambda text: JobNotFound(job_id=text))] | None,
        Query(alias="from"),
    ] = None,
) -> HTMLResponse:
    """Show a form with defaults, with a data set, or with the settings of another job."""
    initial: dict[str, Any] = {"method": {"type": "auto"}}
    with database.read() as session:
        data_sources = choices.data_sources(session, settings)
        base_models = choices.base_models(session, settings)
        source_job = repository.get(session, from_) if from_ else None
        if source_job:
            initial = _explicit_settings(source_job.spec) | {"name": source_job.name}
    if data:
        initial["data"] = {**initial.get("data", {}), "source": data}
    return render(
        request,
        "new_job.html",
        initial={name: value for name, value in initial.items() if value},
        values=_flatten(initial),
        source_job=source_job,
        source_job_name=display_names.name(source_job) if source_job else None,
        roles=list(Role),
        variants=list(LoraVariant),
        data_sources=data_sources,
        base_models=base_models,
        # A source given split by split gets one field per split.
        splits=list(Split) if isinstance(initial.get("data", {}).get("source"), Mapping) else [],
    )


def _explicit_settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from the defaults. A trial becomes a whole run."""
    settings = TrainSpec.model_validate(spec).model_dump(mode="json", exclude_defaults=True)
    settings["method"]["type"] = spec["method"]["type"]
    for name in ("trial", "result", "spec_version"):
        settings.pop(name, None)
    settings.get("runtime", {}).pop("threads", None)  # set by the worker that ran the job
    return settings


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `{"method": {"r": 8}}` as `{"method.r": 8}`."""
    flattened: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flattened |= _flatten(value, f"{prefix}{name}.")
        else:
            flattened[f"{prefix}{name}"] = value
    return flattened
