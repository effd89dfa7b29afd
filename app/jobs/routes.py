"""Jobs: create, watch, update, cancel, delete."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response, status
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.auth.middleware import check_scope, requires, still_good
from app.database.engines import Database
from app.http.dependencies import CallerDep, DatabaseDep, QueueDep, SettingsDep, StoreDep
from app.http.fields import Text, id_or
from app.http.pagination import After, Limit, Page, decode, encode
from app.idempotency import service as idempotency
from app.idempotency.header import KeyedDep
from app.jobs import base_models, repository, service
from app.jobs import retry as retries
from app.jobs.errors import JobNotFound, NoAnswers
from app.jobs.event_stream import Streams, follow
from app.jobs.repository import Filter
from app.jobs.results import comparison, curves, misclassified
from app.jobs.results.comparison import SideBySide
from app.jobs.results.curves import Curves
from app.jobs.results.misclassified import MistakeView
from app.jobs.schemas import (
    EventView,
    JobCreate,
    JobListItem,
    JobUpdate,
    JobView,
    Log,
    Plan,
    PointView,
)
from app.jobs.tags import Tag
from app.queue.states import JobState
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.store import Store
from lora_core.specs.method import MethodName


async def _named_in_the_log(request: Request) -> None:
    """Every line that is logged about the request tells which job it is about."""
    with suppress(KeyError, ValueError):
        job_id = UUID(request.path_params["job_id"])
        structlog.contextvars.bind_contextvars(job_id=str(job_id))


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    app.state.streams = Streams(
        app.state.resources.database,
        most=settings.max_streams,
        most_of_a_key=settings.key_streams,
    )
    yield


router = APIRouter(
    prefix=JobView.prefix,
    tags=["jobs"],
    dependencies=[Depends(_named_in_the_log)],
    lifespan=_lifespan,
)

READ = [requires("jobs:read")]
WRITE = [requires("jobs:write")]
MOST_POINTS = 10_000
MOST_COMPARED = 20

JobId = Annotated[UUID, id_or(lambda text: JobNotFound(job_id=text))]
Seq = Annotated[int, Query(ge=0, lt=2**31, description="Only what has a greater `seq`.")]


def _filter(
    state: JobState | None = None,
    method: MethodName | None = None,
    search: Annotated[
        Annotated[str, Text(200)] | None, Query(description="In the name, the base or the data.")
    ] = None,
    tag: Annotated[Tag | None, Query(description="With this tag.")] = None,
    cells: Annotated[bool, Query(description="Those that sweeps made, too.")] = True,
) -> Filter:
    return Filter(state=state, method=method, search=search, tag=tag, cells=cells)


FilterDep = Annotated[Filter, Depends(_filter)]


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    dependencies=WRITE,
    responses={200: {"model": Plan, "description": "The plan; nothing was stored."}},
)
def create(  # noqa: PLR0913 - what a submit touches
    body: JobCreate,
    response: Response,
    caller: CallerDep,
    keyed: KeyedDep,
    settings: SettingsDep,
    database: DatabaseDep,
    store: StoreDep,
    queue: QueueDep,
    dry_run: Annotated[bool, Query(description="Answer the plan alone.")] = False,
) -> JobView | Plan:
    """Queue a training run, or say what it would take.

    `register_as` needs the scope `models:admin` as well.
    """
    if body.register_as is not None:
        check_scope(caller, "models:admin")
    call = keyed.call(body.model_dump(mode="json", exclude_unset=True))
    if not dry_run:
        with database.read() as session:
            idempotency.recall(session, call)
    base = base_models.find(
        body.base, body.base_revision, database=database, store=store, settings=settings
    )
    with database.read() as session:
        draft = service.resolve(session, body=body, base=base, settings=settings)
        if dry_run:
            response.status_code = status.HTTP_200_OK
            return service.plan(session, body=body, draft=draft)
    with database.write() as session:
        job = service.submit(
            session, body=body, draft=draft, settings=settings, queue=queue, call=call
        )
    response.headers["Location"] = job.location
    return job


@router.get("", dependencies=READ)
def read_page(
    database: DatabaseDep, only: FilterDep, limit: Limit = 20, after: After = None
) -> Page[JobListItem]:
    """Jobs, the newest first, without their results in full.

    A search looks through 10,000 jobs at a time, `tag` through 10,000 that have tags: a page may be
    empty and yet have a `next`.
    """
    with database.read() as session:
        jobs, last = repository.page(session, after=decode(after), limit=limit, only=only)
        data = service.list_items(session, jobs)
    return Page(data=data, next=encode(last))


@router.get("/compare", dependencies=READ)
def compare(
    job: Annotated[list[JobId], Query(min_length=1, max_length=MOST_COMPARED)],
    database: DatabaseDep,
) -> SideBySide:
    """Jobs side by side: accuracy, settings that differ, and each tested against the first."""
    with database.read() as session:
        return comparison.read(session, job)


@router.get("/{job_id}", dependencies=READ)
def read(job_id: JobId, database: DatabaseDep) -> JobView:
    """One job."""
    with database.read() as session:
        job = repository.get(session, job_id)
        return JobView.of(job, repository.positions(session, [job_id]).get(job_id))


@router.patch("/{job_id}", dependencies=WRITE)
def update(job_id: JobId, body: JobUpdate, database: DatabaseDep) -> JobView:
    """Set the tags or notes of a job, whatever its state."""
    with database.write() as session:
        return service.update(session, job_id=job_id, body=body)


@router.post(
    "/{job_id}/cancel",
    dependencies=WRITE,
    responses={202: {"model": JobView, "description": "The job runs and was asked to stop."}},
)
def cancel(job_id: JobId, response: Response, database: DatabaseDep) -> JobView:
    """Cancel a job. One that has ended stays as it is."""
    with database.write() as session:
        job = service.cancel(session, job_id=job_id)
    if job.state == JobState.RUNNING:
        response.status_code = status.HTTP_202_ACCEPTED
    return JobView.of(job, None)


@router.post("/{job_id}/retry", status_code=status.HTTP_202_ACCEPTED, dependencies=WRITE)
def retry(
    job_id: JobId,
    response: Response,
    keyed: KeyedDep,
    settings: SettingsDep,
    database: DatabaseDep,
    queue: QueueDep,
) -> JobView:
    """Continue a failed or cancelled job from its last checkpoint, as a new job.

    The result is the same, bit for bit, as that of a run to which nothing happened.
    """
    with database.write() as session:
        job = retries.retry(
            session, job_id=job_id, settings=settings, queue=queue, call=keyed.call(None)
        )
    response.headers["Location"] = job.location
    return job


@router.delete("/{job_id}", status_code=status.HTTP_204_NO_CONTENT, dependencies=WRITE)
def delete(job_id: JobId, database: DatabaseDep, store: StoreDep) -> None:
    """Delete a job that has ended, its curves, and its artifact unless a model version needs it."""
    with database.write() as session:
        service.delete(session, job_id=job_id, store=store)


@router.get("/{job_id}/metrics", dependencies=READ)
def read_metrics(
    job_id: JobId,
    database: DatabaseDep,
    split: Annotated[str, Text(16)] | None = None,
    name: Annotated[str, Text(64)] | None = None,
    after: Seq = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_POINTS)] = MOST_POINTS,
) -> Log[PointView]:
    """The curves: loss, accuracy and the like by step."""
    with database.read() as session:
        repository.get(session, job_id)
        rows = repository.points(
            session, job_id, after=after, limit=limit + 1, split=split, name=name
        )
    views = [PointView.model_validate(row) for row in rows[:limit]]
    return Log(data=views, next=views[-1].seq if len(rows) > limit else None)


@router.get("/{job_id}/curves", dependencies=READ)
def read_curves(
    job_id: JobId,
    database: DatabaseDep,
    points: Annotated[int, Query(ge=2, le=MOST_POINTS, description="Most of each.")] = 1000,
    name: Annotated[list[Annotated[str, Text(64)]], Query(description="Only these.")] = [],  # noqa: B006 - FastAPI copies it
) -> Curves:
    """The curves as a picture needs them: one list of steps and one of values each."""
    with database.read() as session:
        return curves.read(session, job_id, most=points, names=name)


@router.get(
    "/{job_id}/mistakes/download",
    dependencies=READ,
    response_class=Response,
    responses={200: {"content": {kind: {} for kind in ("text/csv", "application/jsonl")}}},
)
def download_mistakes(
    job_id: JobId,
    database: DatabaseDep,
    store: StoreDep,
    split: misclassified.Part = "test",
    format: misclassified.Format = "csv",
) -> Response:
    """All of them as a file. In CSV, cells that look like formulas begin with an apostrophe."""
    found = _mistakes(job_id, database, store, split=split, limit=misclassified.MOST)
    write = misclassified.as_csv if format == "csv" else misclassified.as_jsonl
    name = f"mistakes-{split}-{job_id}.{format}"
    return Response(
        write(found),
        media_type=misclassified.MEDIA_TYPES[format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.get("/{job_id}/mistakes", dependencies=READ)
def read_mistakes(
    job_id: JobId,
    database: DatabaseDep,
    store: StoreDep,
    split: misclassified.Part = "test",
    limit: Annotated[int, Query(ge=1, le=misclassified.MOST)] = 20,
) -> list[MistakeView]:
    """The texts that it answered most wrongly, the surest first."""
    return _mistakes(job_id, database, store, split=split, limit=limit)


def _mistakes(
    job_id: UUID, database: Database, store: Store, *, split: misclassified.Part, limit: int
) -> list[MistakeView]:
    with database.read() as session:
        job = repository.get(session, job_id)
        if job.artifact_id is None:
            raise NoAnswers(job_id=job_id, part=split)
        ref = artifacts.get(session, job.artifact_id).ref
    return misclassified.read(store, job, ref, part=split, most=limit)


@router.get("/{job_id}/events", dependencies=READ)
def read_events(
    job_id: JobId,
    database: DatabaseDep,
    after: Seq = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Log[EventView]:
    """What happened to a job, in order."""
    with database.read() as session:
        repository.get(session, job_id)
        rows = repository.events(session, job_id, after=after, limit=limit + 1)
    views = [EventView.model_validate(row) for row in rows[:limit]]
    return Log(data=views, next=views[-1].seq if len(rows) > limit else None)


def _present(job_id: JobId, database: DatabaseDep) -> UUID:
    """The id of a job that is there: a stream that has begun can no longer say 404."""
    with database.read() as session:
        return repository.get(session, job_id).id


async def _streams(request: Request, caller: CallerDep) -> AsyncIterator[Streams]:
    """With room for one more, until the answer has ended. Raises what `Streams.place` raises."""
    streams: Streams = request.app.state.streams
    with streams.place(caller.id):
        yield streams


@router.get("/{job_id}/stream", dependencies=READ, response_class=EventSourceResponse)
async def stream(
    job_id: Annotated[UUID, Depends(_present)],
    request: Request,
    streams: Annotated[Streams, Depends(_streams)],
    after: Seq = 0,
    last_event_id: Annotated[int | None, Header(ge=0, lt=2**63)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Events and metric points as they come, at last `end`.

    Begins after `after`, which a browser can set; resumes by `Last-Event-ID`, which outweighs it.
    """

    async def welcome() -> bool:
        return not request.app.state.leaving.is_set() and await still_good(request)

    first = after if last_event_id is None else last_event_id
    async for message in follow(streams, job_id, after=first, welcome=welcome):
        yield message
