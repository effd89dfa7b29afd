"""What happens to a job, as server-sent events, live and from any point on.

Events and metric points share one row of numbers, and the row of the job tells the last one given.
Each look at the database is one short read transaction on a thread; between two nothing is held.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import anyio
from fastapi.sse import ServerSentEvent
from starlette.concurrency import run_in_threadpool

from app.db.engines import Database
from app.jobs import repository
from app.jobs.errors import JobNotFound
from app.jobs.schemas import EventView, JobView, PointView, StateView
from app.jobs.states import JobState
from app.jobs.tables import JobEvent, MetricPoint

POLL_SECONDS = 0.5
WINDOW = 500  # numbers looked at in one transaction


@dataclass(frozen=True)
class Look:
    """One moment of a job: what came after a number, up to `upto`, and how it stands."""

    rows: Sequence[JobEvent | MetricPoint]
    upto: int
    more: bool
    state: StateView
    job: JobView


async def follow(
    database: Database, job_id: UUID, *, after: int, welcome: Callable[[], Awaitable[bool]]
) -> AsyncIterator[ServerSentEvent]:
    """Messages `event` and `metric` with their number as id, `state` at each change, at last `end`.

    Ends early when the job is deleted, and when the reader is not `welcome` any more: coming back
    with the last number, it is let in by another process or told why not.
    """
    told: StateView | None = None
    while await welcome():
        look = await run_in_threadpool(_look, database, job_id, after)
        if look is None:
            return
        for row in look.rows:
            yield _message(row)
        if look.state != told:
            yield ServerSentEvent(event="state", data=look.state)
        told, after = look.state, look.upto
        if look.more:
            continue
        if look.job.state.final:
            yield ServerSentEvent(event="end", data=look.job)
            return
        await anyio.sleep(POLL_SECONDS)


def _look(database: Database, job_id: UUID, after: int) -> Look | None:
    with database.read() as session:
        try:
            job = repository.get(session, job_id)
        except JobNotFound:
            return None
        after = min(after, job.stream_seq)  # a number that was never given stands for the last one
        upto = min(after + WINDOW, job.stream_seq)
        position = None
        if job.state == JobState.QUEUED:
            position = repository.positions(session, [job_id])[job_id]
        return Look(
            rows=repository.between(session, job_id, after=after, upto=upto),
            upto=upto,
            more=upto < job.stream_seq,
            state=StateView.of(job, position),
            job=JobView.of(job, position),
        )


def _message(row: JobEvent | MetricPoint) -> ServerSentEvent:
    if isinstance(row, JobEvent):
        return ServerSentEvent(event="event", id=str(row.seq), data=EventView.model_validate(row))
    return ServerSentEvent(event="metric", id=str(row.seq), data=PointView.model_validate(row))
