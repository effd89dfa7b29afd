"""Liveness and readiness checks. These routes need no API key."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import structlog
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Scope

from app.database import migrations
from app.database.single_flight import SingleFlight
from app.errors import ReadinessCheckTimedOut, ShuttingDown
from app.http.dependencies import AppStateDep
from app.http.error_responses import (
    RETRY_AFTER_SECONDS,
    ProblemDetails,
    problem_from_error,
    problem_response,
)
from app.http.fields import ResponseModel
from app.queue.dispatch import require_writable_broker
from app.resources import Resources
from app.storage import data_dir

CHECK_TIMEOUT_SECONDS = 4.0  # probes often time out after 5 s

ReadinessChecks = SingleFlight[
    str, ProblemDetails | None
]  # what is wrong with each part, if anything

router = APIRouter(tags=["health"])
log = structlog.get_logger(__name__)


class Liveness(ResponseModel):
    """`status` is always `ok`: otherwise the response is an error."""

    status: Literal["ok"] = "ok"


class Readiness(Liveness):
    """The parts that the service depends on. It works without the broker, only more slowly."""

    parts: dict[str, Literal["ok", "down"]]


@router.get("/livez", openapi_extra={"security": []})
async def check_liveness() -> Liveness:
    """Return 200 as long as the process responds."""
    return Liveness()


@router.get("/readyz", openapi_extra={"security": []}, response_model=Readiness)
@router.get("/health", response_model=Readiness, include_in_schema=False)
@router.get("/ping", response_model=Readiness, include_in_schema=False)
async def check_readiness(request: Request, state: AppStateDep) -> Readiness | Response:
    """Return 200 if the service can do its work.

    Database and store respond, the database schema matches this version, the data directory is
    writable and has free space, and the process is not shutting down. `/health` and `/ping` are
    aliases for clients that use these paths.
    """
    if state.shutting_down.is_set():
        raise ShuttingDown()
    results = await _run_checks(state.resources, state.readiness_checks, request.scope)
    failed = {name: problem for name, problem in results.items() if problem is not None}
    blocking = [problem for name, problem in failed.items() if name != "broker"]
    if blocking:
        log.warning("not ready", parts={name: each.code for name, each in failed.items()})
        return problem_response(request.scope, _not_ready_problem(blocking[0], failed))
    return Readiness(parts={name: "down" if name in failed else "ok" for name in results})


async def _run_checks(
    resources: Resources, running_checks: ReadinessChecks, scope: Scope
) -> dict[str, ProblemDetails | None]:
    """Check all parts concurrently, and return the problem of each, or None."""
    checks: dict[str, Callable[[], object]] = {
        "database": partial(migrations.check_schema_revision, resources.database),
        "store": resources.store.check_health,
        "disk": partial(data_dir.check_data_dir, resources.settings),
    }
    if resources.settings.broker_url:
        checks["broker"] = partial(require_writable_broker, resources.settings.broker_url)
    timed_out = problem_from_error(ReadinessCheckTimedOut(seconds=CHECK_TIMEOUT_SECONDS), scope)

    def find_problem(check: Callable[[], object]) -> ProblemDetails | None:
        try:
            check()
        except Exception as error:
            return problem_from_error(error, scope)
        return None

    problems = await asyncio.gather(
        *(
            running_checks.run(name, partial(find_problem, check), fallback=timed_out)
            for name, check in checks.items()
        )
    )
    return dict(zip(checks, problems, strict=True))


def _not_ready_problem(
    first: ProblemDetails, failed: Mapping[str, ProblemDetails]
) -> ProblemDetails:
    """Return one problem that lists each part that failed."""
    errors = tuple(
        {"at": name, "code": problem.code, "message": problem.detail}
        for name, problem in failed.items()
    )
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS), **first.headers}  # a full disk sets none
    return ProblemDetails(503, first.code, first.title, first.detail, errors, headers)
