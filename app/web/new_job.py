"""The form of a new job. What it sends, and what it is told before, is the API's."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from app.auth.middleware import requires
from app.http.dependencies import DatabaseDep, SettingsDep
from app.http.fields import Text, id_or
from app.jobs import repository
from app.jobs.errors import JobNotFound
from app.web import choices, display_names
from app.web.page import render
from lora_core.specs.data import Split
from lora_core.specs.method import Role, Variant
from lora_core.specs.train import TrainSpec

router = APIRouter(include_in_schema=False)


@router.get("/jobs/new", dependencies=[requires("jobs:write")])
def new_job(
    request: Request,
    database: DatabaseDep,
    settings: SettingsDep,
    data: Annotated[Annotated[str, Text(1024)] | None, Query()] = None,
    from_: Annotated[
        Annotated[UUID, id_or(lambda text: JobNotFound(job_id=text))] | None, Query(alias="from")
    ] = None,
) -> HTMLResponse:
    """An empty form, one about a data set, or one filled with the settings of another job."""
    given: dict[str, Any] = {"method": {"type": "auto"}}
    with database.read() as session:
        sources, bases = choices.sources(session, settings), choices.bases(session, settings)
        like = repository.get(session, from_) if from_ else None
        if like:
            given = _given(like.spec) | {"name": like.name}
    if data:
        given["data"] = {**given.get("data", {}), "source": data}
    return render(
        request,
        "new_job.html",
        given={name: value for name, value in given.items() if value},
        values=_flat(given),
        like=like,
        like_name=display_names.name(like) if like else None,
        roles=list(Role),
        variants=list(Variant),
        sources=sources,
        bases=bases,
        parts=list(Split) if isinstance(given.get("data", {}).get("source"), Mapping) else [],
    )


def _given(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What a description says that is not said anyway. A part of a run is begun as a whole one."""
    said = TrainSpec.model_validate(spec).model_dump(mode="json", exclude_defaults=True)
    said["method"]["type"] = spec["method"]["type"]
    for name in ("trial", "result", "spec_version"):
        said.pop(name, None)
    said.get("runtime", {}).pop("threads", None)  # decided by the worker that ran it
    return said


def _flat(given: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """`{"method": {"r": 8}}` as `{"method.r": 8}`."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{place}{name}.")
        else:
            found[f"{place}{name}"] = value
    return found
