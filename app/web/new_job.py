"""The form of a new job. What it sends, and what it is told before, is the API's."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from app.datasets import repository as datasets
from app.deps import DatabaseDep, SettingsDep
from app.fields import Text, id_or
from app.jobs import repository
from app.jobs.errors import JobNotFound
from app.keys.auth import requires
from app.registry import repository as registry
from app.web.page import render
from lora_core.hub import PREFIX
from lora_core.samples import minilm, reviews
from lora_core.specs.method import Role, Variant
from lora_core.specs.train import TrainSpec

MOST_NAMES = 100  # of data sets and of models that are offered

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
    given: dict[str, Any] = {"method": {"type": "lora"}}
    with database.read() as session:
        uploads = datasets.page(session, after=None, limit=MOST_NAMES)
        models = registry.models(session, after=None, limit=MOST_NAMES)
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
        roles=list(Role),
        variants=list(Variant),
        sources=[
            *reviews.SAMPLES,
            *dict.fromkeys(each.name for each in uploads),
            *(f"{PREFIX}{name}" for name in settings.hub_datasets),
        ],
        bases=[minilm.NAME, *(model.name for model in models), *settings.hub_models],
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
        if isinstance(value, Mapping) and name != "source":
            found |= _flat(value, f"{place}{name}.")
        else:
            found[f"{place}{name}"] = value
    return found
