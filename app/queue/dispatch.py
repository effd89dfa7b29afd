"""How the workers are woken.

A hint is a courtesy: the jobs table is the queue, and a worker polls it anyway. So a hint may be
lost, repeated or late, and whoever gives one never waits for the broker.
"""

import threading
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from queue import Full, Queue
from typing import Literal, Protocol
from urllib.parse import urlsplit
from uuid import UUID

import redis
import structlog
from celery import Celery
from kombu import Exchange
from kombu import Queue as BrokerQueue
from pydantic import BaseModel, ConfigDict
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import or_, update
from sqlalchemy.orm import Session

from app.database.clock import now
from app.errors import AppError, Unavailable
from app.queue.fencing import UNSYNCED, append
from app.queue.states import JobState, Lane
from app.queue.tables import Job
from app.queue.transitions import NOT_WAITING, STORAGE, Told, backoff
from app.settings import Settings

TASK = "loraworks.hint"
LANES = ("cpu", "gpu", "any")
SCHEMES = ("redis", "rediss", "redis+socket")
MOST_WAITING = 1000  # hints; more are dropped, since each is repeated later anyway
DOWN_SECONDS = 1.0  # after a failure no hint is sent for so long
CLOSE_SECONDS = 3.0

log = structlog.get_logger(__name__)


class BrokerUrlInvalid(AppError):
    """The address of the broker is none."""

    status = 500
    code = "broker_url_invalid"
    message = (
        "LORAWORKS_BROKER_URL is wrong: {problem}. Give redis://:PASSWORD@HOST:6379/0, or leave it "
        "out: workers then only poll."
    )


class Hint(BaseModel):
    """The message: a job waits."""

    model_config = ConfigDict(extra="forbid")

    v: Literal[1]  # version
    job_id: UUID


class JobQueue(Protocol):
    """Tells the workers of a lane that a job waits. Called after the commit; never raises."""

    def hint(self, job_id: UUID, *, lane: str) -> None: ...

    def close(self) -> None: ...


class PollOnlyQueue:
    """No broker: workers find the job at their next poll."""

    def hint(self, job_id: UUID, *, lane: str) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class CeleryQueue:
    """Sends hints from a thread of its own, to the list of the lane."""

    def __init__(self, url: str) -> None:
        self._app = _producer(url)
        self._waiting: Queue[tuple[UUID, str] | None] = Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._send_all, name="hints", daemon=True)
        self._thread.start()

    def hint(self, job_id: UUID, *, lane: str) -> None:
        """Returns at once, whatever the broker does."""
        with suppress(Full):
            self._waiting.put_nowait((job_id, lane))

    def close(self) -> None:
        """Send what waits, if the broker takes it within a moment."""
        with suppress(Full):
            self._waiting.put(None, timeout=CLOSE_SECONDS)
        self._thread.join(CLOSE_SECONDS)
        self._app.close()

    def _send_all(self) -> None:
        resting_until = 0.0
        while (hint := self._waiting.get()) is not None:
            if time.monotonic() < resting_until:
                continue
            try:
                self._send(*hint)
            except Exception as error:
                log.warning("a hint could not be sent", job_id=str(hint[0]), error=str(error))
                resting_until = time.monotonic() + DOWN_SECONDS

    def _send(self, job_id: UUID, lane: str) -> None:
        body = Hint(v=1, job_id=job_id).model_dump(mode="json")
        self._app.send_task(TASK, args=[body], queue=queue_name(lane), retry=False)


def open_queue(settings: Settings) -> JobQueue:
    """The queue of this installation. Raises `BrokerUrlInvalid`."""
    if settings.broker_url is None:
        return PollOnlyQueue()
    return CeleryQueue(checked_url(settings.broker_url))


def checked_url(url: str) -> str:
    """The address of the broker, which may be down. Raises `BrokerUrlInvalid`."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError as error:
        raise BrokerUrlInvalid(problem="it cannot be read as a URL") from error
    if parts.scheme not in SCHEMES:
        raise BrokerUrlInvalid(problem=f"{parts.scheme!r} is none of {', '.join(SCHEMES)}")
    return url


def queue_name(lane: str) -> str:
    """The list in the broker. Every worker hears that of `any`, whatever devices it has: a list
    that nobody hears grows for ever.
    """
    return f"loraworks.{lane}"


def broker_queues(lanes: Iterable[str]) -> list[BrokerQueue]:
    """On the default exchange: with a named one a broker that was flushed takes messages to drop
    them, since it has forgotten whom they are for.
    """
    return [BrokerQueue(queue_name(lane), Exchange(""), queue_name(lane)) for lane in lanes]


def _producer(url: str) -> Celery:
    app = Celery("loraworks", broker=url, set_as_current=False)
    app.conf.update(
        task_queues=broker_queues(LANES),
        task_serializer="json",
        task_ignore_result=True,
        broker_pool_limit=1,
        # A broker that hangs costs a second.
        broker_pool_acquire_timeout=2,
        broker_transport_options={
            "socket_connect_timeout": 1,
            "socket_timeout": 1,
            "max_retries": 0,
        },
    )
    return app


# MERGED app.queue.dispatch
# Whether the broker takes hints. Nothing depends on it: without, jobs start a little later.

SECONDS = 1.0


class BrokerUnavailable(Unavailable):
    """The broker does not answer."""

    code = "broker_unavailable"
    message = "The broker does not answer. Jobs are taken all the same, only a little later."


def check(url: str) -> None:
    """By a write, which a full broker refuses and one that was a primary before a failover. Raises
    `BrokerUnavailable`.
    """
    address = url.replace("redis+socket://", "unix://", 1)  # as Celery spells it
    limits = {"socket_connect_timeout": SECONDS, "socket_timeout": SECONDS}
    try:
        with redis.Redis.from_url(address, retry=Retry(NoBackoff(), 0), **limits) as client:
            client.set("loraworks.ready", "", px=1)
    except (redis.RedisError, OSError, ValueError) as error:
        raise BrokerUnavailable() from error


# MERGED app.queue.dispatch
# Jobs that wait: telling the workers again, and an end to waiting for ever.


def take_due(session: Session, *, hint_seconds: float) -> list[tuple[UUID, Lane]]:
    """Jobs of which the caller now tells the workers; each row notes it.

    A job that came back is told once it is due. A hint may be lost with its broker, so it is
    repeated: after `hint_seconds`, doubling.
    """
    pause = backoff(hint_seconds, Job.dispatch_count)
    rows = session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, Job.run_after <= now())
        .where(or_(Job.dispatched_at.is_(None), Job.dispatched_at + pause <= now()))
        .values(dispatched_at=now(), dispatch_count=Job.dispatch_count + 1)
        .returning(Job.id, Job.lane),
        execution_options=UNSYNCED,
    )
    return [(row.id, Lane(row.lane)) for row in rows]


def note_trouble(session: Session, lanes: Collection[Lane], *, message: str) -> None:
    """Show on the due jobs of these lanes that they wait for disk or storage of the workers.

    They stay due: nothing is tried meanwhile, so an outage of any length leaves no attempts behind.
    """
    session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, Job.lane.in_(lanes), Job.run_after <= now())
        .where(Job.waiting_code.is_distinct_from(STORAGE))
        .values(waiting_since=now(), waiting_code=STORAGE, waiting_message=message),
        execution_options=UNSYNCED,
    )


def forget_trouble(session: Session, lanes: Collection[Lane]) -> None:
    """A worker for these lanes is well: what `note_trouble` showed is over, and the jobs count as
    queued from now.

    Jobs that met the trouble in an attempt of their own keep it until they have gone on.
    """
    noted = Job.waiting_since >= Job.run_after
    session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, Job.lane.in_(lanes), noted)
        .where(Job.waiting_code == STORAGE)
        .values(**NOT_WAITING, run_after=now()),
        execution_options=UNSYNCED,
    )


def make_all_due(session: Session) -> None:
    """Let every queued job be due now: after a step of the clock its time may be hours away."""
    session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, Job.run_after > now())
        .values(run_after=now()),
        execution_options=UNSYNCED,
    )


def fail_overdue(session: Session, *, queue_seconds: float) -> list[UUID]:
    """End the jobs that have waited for longer than that, unless for a storage that is away."""
    message = f"It waited in the queue for over {queue_seconds:g} s."
    rows = session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, Job.run_after <= now() - queue_seconds)
        .where(Job.waiting_code.is_distinct_from(STORAGE))
        .values(
            state=JobState.FAILED,
            finished_at=now(),
            error_code="queue_timeout",
            error_message=message,
            stream_seq=Job.stream_seq + 1,
        )
        .returning(Job.id, Job.attempt, Job.stream_seq),
        execution_options=UNSYNCED,
    ).all()
    for row in rows:
        append(session, row, Told("failed", "error", message, {"code": "queue_timeout"}))
    return [row.id for row in rows]
