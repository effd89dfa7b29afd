"""Routes of jobs: create, list, update, cancel, pause, resume, retry, delete.

Also their results and streams.
"""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, Header, Query, Request, Response, status
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.auth.middleware import check_scope, is_still_authenticated, require_scope
from app.database.engines import Database
from app.http.dependencies import (
    AppStateDep,
    CallerDep,
    DatabaseDep,
    NotifierDep,
    SettingsDep,
    StoreDep,
)
from app.http.fields import CleanText, file_response_openapi, uuid_or_not_found_validator
from app.http.pagination import Page, PageCursor, PageLimit, decode_cursor, encode_cursor
from app.idempotency import service as idempotency
from app.idempotency.header import IdempotencyDep
from app.jobs import pretrained_bases, repository, service
from app.jobs.errors import JobNotFound, NoPredictions
from app.jobs.event_stream import EventStreamPoller, stream_job
from app.jobs.repository import JobFilter
from app.jobs.resolve import JobResolver
from app.jobs.results import comparison, curves, misclassified
from app.jobs.schemas import (
    Curves,
    JobComparison,
    JobCreate,
    JobEventView,
    JobListItem,
    JobPlan,
    JobUpdate,
    JobView,
    MetricPointView,
    MisclassifiedText,
    SequencePage,
)
from app.jobs.tags import Tag
from app.jobs.views import job_list_items, job_view
from app.queue.enums import JobState
from app.storage import repository as artifacts
from app.storage.store import Store
from lora_core.specs.method import MethodName


async def _bind_job_id(request: Request) -> None:
    """Add the job id to every log line of the request."""
    with suppress(KeyError, ValueError):
        job_id = UUID(request.path_params["job_id"])
        structlog.contextvars.bind_contextvars(job_id=str(job_id))


router = APIRouter(prefix=JobView.prefix, tags=["jobs"], dependencies=[Depends(_bind_job_id)])

REQUIRE_READ = [require_scope("jobs:read")]
REQUIRE_WRITE = [require_scope("jobs:write")]
MAX_POINTS = 10_000
MAX_COMPARED = 20

JobId = Annotated[UUID, uuid_or_not_found_validator(lambda text: JobNotFound(job_id=text))]
SplitParam = Annotated[
    misclassified.EvaluatedSplit, Query(description="Split that the texts are from.")
]
Seq = Annotated[int, Query(ge=0, lt=2**31, description="Return only items with a greater `seq`.")]


def _filter(
    state: Annotated[JobState | None, Query(description="Only jobs in this state.")] = None,
    method: Annotated[MethodName | None, Query(description="Only jobs with this method.")] = None,
    search: Annotated[
        Annotated[str, CleanText(200)] | None,
        Query(
            description="Substring of the name, the base or the data. Case is ignored; "
            "with SQLite, only that of ASCII letters."
        ),
    ] = None,
    tag: Annotated[Tag | None, Query(description="Only jobs with this tag.")] = None,
    include_trials: Annotated[bool, Query(description="Include jobs created by sweeps.")] = True,
) -> JobFilter:
    return JobFilter(
        state=state, method=method, search=search, tag=tag, include_trials=include_trials
    )


FilterDep = Annotated[JobFilter, Depends(_filter)]


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=REQUIRE_WRITE,
    response_model=JobView,
    responses={200: {"model": JobPlan, "description": "The plan; nothing was stored."}},
)
def create_job(  # noqa: PLR0913 - what creating a job touches
    body: JobCreate,
    response: Response,
    caller: CallerDep,
    build_idempotent_request: IdempotencyDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    notifier: NotifierDep,
    dry_run: Annotated[bool, Query(description="Return only the plan; store nothing.")] = False,
) -> JobView | Response:
    """Create a job, or return its plan with `dry_run`.

    `register_as` also requires the scope `models:admin`.
    """
    if body.register_as is not None:
        check_scope(caller, "models:admin")
    call = build_idempotent_request(body.model_dump(mode="json", exclude_unset=True))
    if not dry_run:
        with database.read() as session:
            idempotency.raise_if_replayed(session, call)
    base = None
    if body.base is not None:
        base = pretrained_bases.resolve_base(
            body.base, body.base_revision, database=database, store=store, settings=settings
        )
    with database.read() as session:
        resolved = JobResolver(session, settings).resolve(body.spec, base)
        if dry_run:
            plan = service.plan_job(session, body=body, resolved=resolved)
            return Response(plan.model_dump_json(), media_type="application/json")
    with database.write() as session:
        job = service.create_job(
            session, body=body, resolved=resolved, settings=settings, notifier=notifier, call=call
        )
    response.headers["Location"] = job.location
    return job


@router.get("", dependencies=REQUIRE_READ)
def list_jobs(
    database: DatabaseDep, job_filter: FilterDep, limit: PageLimit = 20, after: PageCursor = None
) -> Page[JobListItem]:
    """List jobs, the newest first, without their complete results.

    One call searches 10,000 jobs with `search`, and 10,000 jobs that have tags with `tag`. So a
    page may be empty and still have a `next`.
    """
    with database.read() as session:
        jobs, next_after = repository.list_jobs(
            session, after=decode_cursor(after), limit=limit, job_filter=job_filter
        )
        data = job_list_items(session, jobs)
    return Page(data=data, next=encode_cursor(next_after))


@router.get("/compare", dependencies=REQUIRE_READ)
def compare_jobs(
    job: Annotated[
        list[JobId],
        Query(min_length=1, max_length=MAX_COMPARED, description="One for each job, in order."),
    ],
    database: DatabaseDep,
) -> JobComparison:
    """Compare jobs: accuracies, settings that differ, and a test of each job against the first."""
    with database.read() as session:
        return comparison.compare_jobs_with_first(session, job)


@router.get("/{job_id}", dependencies=REQUIRE_READ)
def get_job(job_id: JobId, database: DatabaseDep) -> JobView:
    """Get a job."""
    with database.read() as session:
        job = repository.get_training_job(session, job_id)
        return job_view(job, repository.queue_positions(session, [job_id]).get(job_id))


@router.patch("/{job_id}", dependencies=REQUIRE_WRITE)
def update_job(job_id: JobId, body: JobUpdate, database: DatabaseDep) -> JobView:
    """Update the tags or notes of a job in any state."""
    with database.write() as session:
        return service.update_job(session, job_id=job_id, body=body)


@router.post(
    "/{job_id}/cancel",
    dependencies=REQUIRE_WRITE,
    responses={202: {"model": JobView, "description": "The job is running; a stop was requested."}},
)
def cancel_job(job_id: JobId, response: Response, database: DatabaseDep) -> JobView:
    """Cancel a job. A finished job stays as it is."""
    with database.write() as session:
        job = service.cancel_job(session, job_id=job_id)
    if job.state == JobState.RUNNING:
        response.status_code = status.HTTP_202_ACCEPTED
    return job_view(job, None)


@router.post(
    "/{job_id}/pause",
    dependencies=REQUIRE_WRITE,
    responses={
        202: {"model": JobView, "description": "The job is running; a pause was requested."}
    },
)
def pause_job(job_id: JobId, response: Response, database: DatabaseDep) -> JobView:
    """Pause a job. A running one saves a checkpoint and stops; a paused one stays as it is.

    Methods `linear` and `probe`, and `auto` while it compares methods, save no checkpoint and start
    over.
    """
    with database.write() as session:
        job = service.pause_job(session, job_id=job_id)
    if job.state == JobState.RUNNING:
        response.status_code = status.HTTP_202_ACCEPTED
    return job_view(job, None)


@router.post("/{job_id}/resume", dependencies=REQUIRE_WRITE)
def resume_job(job_id: JobId, database: DatabaseDep, notifier: NotifierDep) -> JobView:
    """Resume a paused job from its last checkpoint, or withdraw a pause that has not begun.

    The result is bit-for-bit identical to that of an uninterrupted run.
    """
    with database.write() as session:
        job = service.resume_job(session, job_id=job_id, notifier=notifier)
        return job_view(job, repository.queue_positions(session, [job_id]).get(job_id))


@router.post("/{job_id}/retry", status_code=status.HTTP_202_ACCEPTED, dependencies=REQUIRE_WRITE)
def retry_job(  # noqa: PLR0913 - what creating a job touches
    job_id: JobId,
    response: Response,
    caller: CallerDep,
    build_idempotent_request: IdempotencyDep,
    settings: SettingsDep,
    database: DatabaseDep,
    notifier: NotifierDep,
) -> JobView:
    """Continue a failed or cancelled job from its last checkpoint, as a new job.

    The result is bit-for-bit identical to that of an uninterrupted run. The retry of a job with
    `register_as` also requires the scope `models:admin`.
    """
    with database.write() as session:
        if repository.registers_model(session, job_id):
            check_scope(caller, "models:admin")
        job = service.create_retry_job(
            session,
            job_id=job_id,
            settings=settings,
            notifier=notifier,
            call=build_idempotent_request(None),
        )
    response.headers["Location"] = job.location
    return job


@router.delete("/{job_id}", status_code=status.HTTP_204_NO_CONTENT, dependencies=REQUIRE_WRITE)
def delete_job(job_id: JobId, database: DatabaseDep, store: StoreDep) -> None:
    """Delete a finished job, its curves, and its artifact unless a model version uses it."""
    with database.write() as session:
        service.delete_job(session, job_id=job_id, store=store)


@router.get("/{job_id}/metrics", dependencies=REQUIRE_READ)
def list_metric_points(
    job_id: JobId,
    database: DatabaseDep,
    split: Annotated[
        Annotated[str, CleanText(16)] | None, Query(description="Only points of this split.")
    ] = None,
    name: Annotated[
        Annotated[str, CleanText(64)] | None, Query(description="Only points of this metric.")
    ] = None,
    after: Seq = 0,
    limit: Annotated[
        int, Query(ge=1, le=MAX_POINTS, description="Maximum number of points.")
    ] = MAX_POINTS,
) -> SequencePage[MetricPointView]:
    """List the metric points of a job: loss, accuracy and so on by step."""
    with database.read() as session:
        repository.get_training_job(session, job_id)
        rows = repository.list_metric_points(
            session, job_id, after=after, limit=limit + 1, split=split, name=name
        )
    views = [MetricPointView.model_validate(row) for row in rows[:limit]]
    return SequencePage(data=views, next=views[-1].seq if len(rows) > limit else None)


@router.get("/{job_id}/curves", dependencies=REQUIRE_READ)
def get_job_curves(
    job_id: JobId,
    database: DatabaseDep,
    points: Annotated[int, Query(ge=2, le=MAX_POINTS, description="Per curve.")] = 1000,
    name: Annotated[
        list[Annotated[str, CleanText(64)]], Query(description="Only these metrics.")
    ] = [],  # noqa: B006 - FastAPI copies it
) -> Curves:
    """Get the curves for plotting: a list of steps and a list of values each."""
    with database.read() as session:
        return curves.list_curves(session, job_id, max_points=points, names=name)


@router.get(
    "/{job_id}/misclassified/download",
    dependencies=REQUIRE_READ,
    response_class=Response,
    responses=file_response_openapi("text/csv", "application/jsonl"),
)
def download_misclassified(
    job_id: JobId,
    database: DatabaseDep,
    store: StoreDep,
    split: SplitParam = "test",
    format: Annotated[
        misclassified.MisclassifiedFormat, Query(description="Format of the file.")
    ] = "csv",
) -> Response:
    """Download the misclassified texts. In CSV, cells that look like formulas get an apostrophe."""
    texts = _list_misclassified(
        job_id, database, store, split=split, limit=misclassified.MAX_MISCLASSIFIED
    )
    write = misclassified.to_csv if format == "csv" else misclassified.to_jsonl
    name = f"misclassified-{split}-{job_id}.{format}"
    return Response(
        write(texts),
        media_type=misclassified.MEDIA_TYPES[format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.get("/{job_id}/misclassified", dependencies=REQUIRE_READ)
def list_misclassified(
    job_id: JobId,
    database: DatabaseDep,
    store: StoreDep,
    split: SplitParam = "test",
    limit: Annotated[
        int, Query(ge=1, le=misclassified.MAX_MISCLASSIFIED, description="Maximum number of texts.")
    ] = 20,
) -> list[MisclassifiedText]:
    """List the misclassified texts, the most confident errors first."""
    return _list_misclassified(job_id, database, store, split=split, limit=limit)


def _list_misclassified(
    job_id: UUID,
    database: Database,
    store: Store,
    *,
    split: misclassified.EvaluatedSplit,
    limit: int,
) -> list[MisclassifiedText]:
    with database.read() as session:
        job = repository.get_training_job(session, job_id)
        if job.artifact_id is None:
            raise NoPredictions(job_id=job_id, part=split)
        ref = artifacts.get_artifact(session, job.artifact_id).ref
    return misclassified.list_misclassified(store, job, ref, split=split, limit=limit)


@router.get("/{job_id}/events", dependencies=REQUIRE_READ)
def list_job_events(
    job_id: JobId,
    database: DatabaseDep,
    after: Seq = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Maximum number of events.")] = 100,
) -> SequencePage[JobEventView]:
    """List the events of a job, in order."""
    with database.read() as session:
        repository.get_training_job(session, job_id)
        rows = repository.list_events(session, job_id, after=after, limit=limit + 1)
    views = [JobEventView.model_validate(row) for row in rows[:limit]]
    return SequencePage(data=views, next=views[-1].seq if len(rows) > limit else None)


def _existing_job_id(job_id: JobId, database: DatabaseDep) -> UUID:
    """Return the id of a job that exists: once a stream has begun, it cannot respond with 404."""
    with database.read() as session:
        return repository.get_training_job(session, job_id).id


async def _streams(state: AppStateDep, caller: CallerDep) -> AsyncIterator[EventStreamPoller]:
    """Reserve a stream until the response has ended. Raises what `KeyedLimit.reserve` raises."""
    with state.streams.limit.reserve(caller.id):
        yield state.streams


@router.get("/{job_id}/stream", dependencies=REQUIRE_READ, response_class=EventSourceResponse)
async def stream_job_events(
    job_id: Annotated[UUID, Depends(_existing_job_id)],
    request: Request,
    state: AppStateDep,
    streams: Annotated[EventStreamPoller, Depends(_streams)],
    after: Seq = 0,
    last_event_id: Annotated[
        int | None,
        Header(ge=0, lt=2**63, description="Id of the last message that the client received."),
    ] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Stream events and metric points as they happen, and `end` at last.

    Starts after `after`. The header `Last-Event-ID`, which browsers send when they reconnect, takes
    precedence.
    """

    async def may_continue() -> bool:
        return not state.shutting_down.is_set() and await is_still_authenticated(request)

    first = after if last_event_id is None else last_event_id
    async for message in stream_job(streams, job_id, after=first, may_continue=may_continue):
        yield message
