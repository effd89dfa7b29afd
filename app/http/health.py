"""Whether the service lives and can work. These routes need no key."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import structlog
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Scope

from app.database import migrations
from app.database.single_flight import Lookups
from app.errors import Silent, Stopping
from app.http.error_responses import PREDICT_RESPONSES, RETRY_SECONDS, Problem, answer, describe
from app.http.fields import View
from app.queue.dispatch import check as check_broker
from app.resources import Resources
from app.storage import data_folder

PATIENCE_SECONDS = 4.0  # whoever asks may give up after 5

Vitals = Lookups[str, Problem | None]  # what is wrong with each part, if anything

router = APIRouter(tags=["health"])
log = structlog.get_logger(__name__)


class Health(View):
    """`ok`, or the answer is an error."""

    status: Literal["ok"] = "ok"


class Readiness(Health):
    """The parts that the service works with. A broker that is down costs no more than some time."""

    parts: dict[str, Literal["ok", "down"]]


@router.get("/livez", openapi_extra={"security": []})
async def livez() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz", openapi_extra={"security": []}, response_model=Readiness)
@router.get(
    "/health",
    openapi_extra={"security": []},
    response_model=Readiness,
    responses=PREDICT_RESPONSES,
)
@router.get(
    "/ping",
    openapi_extra={"security": []},
    response_model=Readiness,
    responses=PREDICT_RESPONSES,
)
async def readyz(request: Request) -> Readiness | Response:
    """Database and store answer, the schema is the one of this version, the data folder can be
    written and its disk has room, and nobody said stop.
    """
    state = request.app.state
    if state.leaving.is_set():
        raise Stopping()
    found = await _look(state.resources, state.vitals, request.scope)
    broken = {name: problem for name, problem in found.items() if problem is not None}
    needed = [problem for name, problem in broken.items() if name != "broker"]
    if needed:
        log.warning("not ready", parts={name: each.code for name, each in broken.items()})
        return answer(request.scope, _summary(needed[0], broken))
    return Readiness(parts={name: "down" if name in broken else "ok" for name in found})


async def _look(resources: Resources, vitals: Vitals, scope: Scope) -> dict[str, Problem | None]:
    """What is wrong with each part. All are asked at the same time."""
    checks: dict[str, Callable[[], object]] = {
        "database": partial(migrations.check, resources.database),
        "store": resources.store.check,
        "disk": partial(data_folder.check, resources.settings),
    }
    if resources.settings.broker_url:
        checks["broker"] = partial(check_broker, resources.settings.broker_url)
    silent = describe(Silent(seconds=PATIENCE_SECONDS), scope)

    def problem(check: Callable[[], object]) -> Problem | None:
        try:
            check()
        except Exception as error:
            return describe(error, scope)
        return None

    looks = (
        vitals.ask(name, partial(problem, check), standby=silent) for name, check in checks.items()
    )
    return dict(zip(checks, await asyncio.gather(*looks), strict=True))


def _summary(first: Problem, broken: Mapping[str, Problem]) -> Problem:
    """One answer that names each part that fails."""
    errors = tuple(
        {"at": name, "code": problem.code, "message": problem.detail}
        for name, problem in broken.items()
    )
    headers = {"Retry-After": str(RETRY_SECONDS), **first.headers}  # a full disk has none
    return Problem(503, first.code, first.title, first.detail, errors, headers)
