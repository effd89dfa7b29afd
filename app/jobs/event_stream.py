"""What happens to a job, as server-sent events, live and from any point on.

Events and metric points share one row of numbers, and the row of the job tells the last one given.
All streams of a process are read together: they wake at the same moments, and what they ask for
then is one short read transaction on one thread. Between two nothing is held.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

import anyio
from fastapi.sse import ServerSentEvent
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.database.engines import Database
from app.jobs import repository
from app.jobs.errors import KeyStreamsUsed, TooManyStreams
from app.jobs.schemas import EventView, JobView, PointView, StateView
from app.queue.states import JobState
from app.queue.tables import Job, JobEvent, MetricPoint

POLL_SECONDS = 0.5
WINDOW = 500  # numbers of one job looked at in one transaction
RETRY_SECONDS = 10  # what a reader that finds no room is told to wait

Position = tuple[UUID, int]  # a job, and the last number that was given of it


@dataclass(frozen=True)
class Look:
    """One moment of a job: what came after a number, up to `upto`, and how it stands."""

    rows: Sequence[JobEvent | MetricPoint]
    upto: int
    more: bool
    state: StateView
    ended: JobView | None  # once there is no more to come


class Streams:
    """The one reader of the database for all streams of this process, and how many there may be.

    Used on the event loop only.
    """

    def __init__(self, database: Database, *, most: int, most_of_a_key: int) -> None:
        self._database = database
        self._most = most
        self._most_of_a_key = most_of_a_key
        self._open: Counter[UUID] = Counter()  # by key
        self._asked: dict[Position, asyncio.Future[Look | None]] = {}
        self._reading: asyncio.Task[None] | None = None

    @contextmanager
    def place(self, caller: UUID) -> Iterator[None]:
        """Room for one stream. Raises `KeyStreamsUsed`, `TooManyStreams`."""
        if self._open[caller] >= self._most_of_a_key:
            raise KeyStreamsUsed(limit=self._most_of_a_key, retry_after=RETRY_SECONDS)
        if self._open.total() >= self._most:
            raise TooManyStreams(limit=self._most, retry_after=RETRY_SECONDS)
        self._open[caller] += 1
        try:
            yield
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]

    async def look(self, job_id: UUID, after: int) -> Look | None:
        """What came after a number; None: there is no such job."""
        position = (job_id, after)
        answer = self._asked.get(position)
        if answer is None:
            answer = self._asked[position] = asyncio.get_running_loop().create_future()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        return await asyncio.shield(answer)  # others may wait for it, too

    async def _read(self) -> None:
        """Answer what was asked, together; what is asked meanwhile is the next look."""
        while self._asked:
            asked, self._asked = self._asked, {}
            try:
                looks = await run_in_threadpool(_look, self._database, asked.keys())
            except Exception as error:  # each reader gets it
                for answer in asked.values():
                    answer.set_exception(error)
                    answer.exception()  # it counts as seen, even if every reader has left
            else:
                for position, answer in asked.items():
                    answer.set_result(looks.get(position))


async def follow(
    streams: Streams, job_id: UUID, *, after: int, welcome: Callable[[], Awaitable[bool]]
) -> AsyncIterator[ServerSentEvent]:
    """Messages `event` and `metric` with their number as id, `state` at each change, at last `end`.

    Ends early when the job is deleted, and when the reader is not `welcome` any more: coming back
    with the last number, it is let in by another process or told why not.
    """
    told: StateView | None = None
    while await welcome():
        look = await streams.look(job_id, after)
        if look is None:
            return
        for row in look.rows:
            yield _message(row)
        if look.state != told:
            yield ServerSentEvent(event="state", data=look.state)
        told, after = look.state, look.upto
        if look.more:
            continue
        if look.ended is not None:
            yield ServerSentEvent(event="end", data=look.ended)
            return
        # To the next of moments that all streams share, so that they are read together.
        await anyio.sleep(POLL_SECONDS - anyio.current_time() % POLL_SECONDS)


def _look(database: Database, asked: Collection[Position]) -> dict[Position, Look]:
    """In one transaction. Jobs that are not there are left out."""
    with database.read() as session:
        jobs = repository.standing(session, {job_id for job_id, _ in asked})
        queued = [job.id for job in jobs.values() if job.state == JobState.QUEUED]
        places = repository.positions(session, queued) if queued else {}
        return {
            (job_id, after): _look_at(session, jobs[job_id], after, places.get(job_id))
            for job_id, after in asked
            if job_id in jobs
        }


def _look_at(session: Session, job: Job, after: int, place: int | None) -> Look:
    last = job.stream_seq
    after = min(after, last)  # a number that was never given stands for the last one
    upto = min(after + WINDOW, last)
    state = StateView.of(job, place)
    rows = repository.between(session, job.id, after=after, upto=upto) if after < upto else ()
    ended = None
    if upto == last and state.state.final:
        session.refresh(job)  # all of it
        ended = JobView.of(job, None)
    return Look(rows=rows, upto=upto, more=upto < last, state=state, ended=ended)


def _message(row: JobEvent | MetricPoint) -> ServerSentEvent:
    if isinstance(row, JobEvent):
        return ServerSentEvent(event="event", id=str(row.seq), data=EventView.model_validate(row))
    return ServerSentEvent(event="metric", id=str(row.seq), data=PointView.model_validate(row))
