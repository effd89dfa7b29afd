"""How the workers are woken.

A hint is a courtesy: the jobs table is the queue, and a worker polls it anyway. So a hint may be
lost, repeated or late, and whoever gives one never waits for the broker.
"""

import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from queue import Full, Queue
from typing import Literal, Protocol
from urllib.parse import urlsplit
from uuid import UUID

import structlog
from celery import Celery
from kombu import Exchange
from kombu import Queue as BrokerQueue
from pydantic import BaseModel, ConfigDict

from app.errors import AppError
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
