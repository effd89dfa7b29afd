"""Server-sent events of a job: its events and metric points, live or from any sequence number.

Events and metric points share one sequence, and the job's row holds the last number given. All
streams of a process are polled together: they wake at the same moments, and one short read
transaction on one thread answers all of them. Nothing is held between polls.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

import anyio
from fastapi.sse import ServerSentEvent
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.database.engines import Database
from app.http.concurrency import KeyedLimit
from app.jobs import repository
from app.jobs.errors import TooManyStreams, TooManyStreamsForKey
from app.jobs.schemas import JobEventView, JobStateView, JobView, MetricPointView
from app.jobs.views import job_state_view, job_view
from app.queue.enums import JobState
from app.queue.tables import Job, JobEvent, MetricPoint

POLL_SECONDS = 0.5
MAX_ROWS_PER_POLL = 500  # sequence numbers of one job read in one transaction
RETRY_AFTER_SECONDS = 10  # for a client that is rejected because of a limit

StreamPosition = tuple[UUID, int]  # a job and the last sequence number the client has


@dataclass(frozen=True)
class StreamPollResult:
    """A job at one moment: the rows after a sequence number, up to `last_seq`, and its state."""

    rows: Sequence[JobEvent | MetricPoint]
    last_seq: int
    has_more: bool
    state: JobStateView
    ended: JobView | None  # set once there is nothing more to come


class EventStreamPoller:
    """Polls the database for all streams of this process, and limits their number.

    Use it on the event loop only.
    """

    def __init__(self, database: Database, *, max_streams: int, max_streams_per_key: int) -> None:
        self._database = database
        self.limit = KeyedLimit(
            total=max_streams,
            per_key=max_streams_per_key,
            error=TooManyStreams,
            error_for_key=TooManyStreamsForKey,
            retry_after=RETRY_AFTER_SECONDS,
        )
        self._requested: dict[StreamPosition, asyncio.Future[StreamPollResult | None]] = {}
        self._poll_task: asyncio.Task[None] | None = None

    async def read_after(self, job_id: UUID, after: int) -> StreamPollResult | None:
        """Return what came after a sequence number. None: there is no such job."""
        position = (job_id, after)
        future = self._requested.get(position)
        if future is None:
            future = self._requested[position] = asyncio.get_running_loop().create_future()
        if self._poll_task is None or self._poll_task.done():
            self._poll_task = asyncio.create_task(self._answer_requests())
        return await asyncio.shield(future)  # other streams may wait for it, too

    async def _answer_requests(self) -> None:
        """Answer all pending requests together; those that arrive meanwhile form the next batch."""
        while self._requested:
            requested, self._requested = self._requested, {}
            try:
                snapshots = await run_in_threadpool(
                    _read_snapshots, self._database, requested.keys()
                )
            except Exception as error:  # each stream gets it
                for future in requested.values():
                    future.set_exception(error)
                    future.exception()  # marks it as retrieved, even if every client has left
            else:
                for position, future in requested.items():
                    future.set_result(snapshots.get(position))


async def stream_job(
    streams: EventStreamPoller,
    job_id: UUID,
    *,
    after: int,
    may_continue: Callable[[], Awaitable[bool]],
) -> AsyncIterator[ServerSentEvent]:
    """Yield messages `event` and `metric` with their number as id, `state` at each change, and
    `end` at last.

    Ends early when the job is deleted, and when `may_continue` returns False: a client that
    reconnects with its last id is served by another process, or gets the reason.
    """
    last_state: JobStateView | None = None
    while await may_continue():
        snapshot = await streams.read_after(job_id, after)
        if snapshot is None:
            return
        for row in snapshot.rows:
            yield _server_sent_event(row)
        if snapshot.state != last_state:
            yield ServerSentEvent(event="state", data=snapshot.state)
        last_state, after = snapshot.state, snapshot.last_seq
        if snapshot.has_more:
            continue
        if snapshot.ended is not None:
            yield ServerSentEvent(event="end", data=snapshot.ended)
            return
        # Sleep to the next multiple of the interval, so that all streams are polled together.
        await anyio.sleep(POLL_SECONDS - anyio.current_time() % POLL_SECONDS)


def _read_snapshots(
    database: Database, positions: Collection[StreamPosition]
) -> dict[StreamPosition, StreamPollResult]:
    """Read all snapshots in one transaction. Jobs that do not exist are left out."""
    with database.read() as session:
        jobs = repository.get_jobs_with_state_columns(session, {job_id for job_id, _ in positions})
        queued = [job.id for job in jobs.values() if job.state == JobState.QUEUED]
        queue_positions = repository.queue_positions(session, queued) if queued else {}
        return {
            (job_id, after): _snapshot(session, jobs[job_id], after, queue_positions.get(job_id))
            for job_id, after in positions
            if job_id in jobs
        }


def _snapshot(
    session: Session, job: Job, after: int, queue_position: int | None
) -> StreamPollResult:
    newest = job.stream_seq
    after = min(after, newest)  # a number that was never given counts as the newest one
    last_seq = min(after + MAX_ROWS_PER_POLL, newest)
    state = job_state_view(job, queue_position)
    rows: Sequence[JobEvent | MetricPoint] = ()
    if after < last_seq:
        rows = repository.list_events_and_metric_points(
            session, job.id, after=after, last_seq=last_seq
        )
    ended = None
    if last_seq == newest and state.state.final:
        session.refresh(job)  # load all columns
        ended = job_view(job, None)
    return StreamPollResult(
        rows=rows, last_seq=last_seq, has_more=last_seq < newest, state=state, ended=ended
    )


def _server_sent_event(row: JobEvent | MetricPoint) -> ServerSentEvent:
    if isinstance(row, JobEvent):
        return ServerSentEvent(
            event="event", id=str(row.seq), data=JobEventView.model_validate(row)
        )
    return ServerSentEvent(
        event="metric", id=str(row.seq), data=MetricPointView.model_validate(row)
    )
