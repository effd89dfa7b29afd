"""Dispatch: the Celery task of each queued job, and re-dispatch of jobs that wait.

The jobs table is the queue. A task names a job by its own id, and the worker that receives it runs
the job only if it can claim it; workers also poll the table. So a task may be lost, duplicated or
late, and sending one never waits for the broker.
"""

import threading
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from queue import Full, Queue
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit
from uuid import UUID

import redis
import structlog
from celery import Celery
from kombu import Exchange
from kombu import Queue as BrokerQueue
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from app.database.base import now
from app.errors import AppError, ServiceUnavailable
from app.queue.enums import DeviceClass, JobState
from app.queue.events import EventContent, add_job_event
from app.queue.fencing import NO_SESSION_SYNC
from app.queue.tables import Job
from app.queue.transitions import (
    CLAIMABLE,
    CLEARED_WAIT,
    QUEUE_TIMEOUT,
    STORAGE_UNAVAILABLE,
    backoff_expression,
)
from app.queue.webhook_events import publish_training_job_ended
from app.settings import Settings

TASK_NAME = "loraworks.run_job"
BROKER_SCHEMES = ("redis", "rediss", "redis+socket")
MAX_PENDING_TASKS = 1000  # more are dropped: each job is dispatched again later anyway
MAX_DISPATCHED = MAX_PENDING_TASKS // 2  # in one round
_FAILURE_PAUSE_SECONDS = 1.0  # after a failed send, tasks are dropped for this long
MAX_REDISPATCH_SECONDS = 86_400.0  # between two tasks of one job
_CLOSE_SECONDS = 3.0
CHECK_TIMEOUT_SECONDS = 1.0

log = structlog.get_logger(__name__)


class BrokerUrlInvalid(AppError):
    status = 500
    code = "broker_url_invalid"
    title = "Invalid broker URL."
    message = (
        "LORAWORKS_BROKER_URL is not valid: {problem}. Set it to "
        "redis://:PASSWORD@HOST:6379/0, or leave it unset: workers then only poll."
    )


class BrokerUnavailable(ServiceUnavailable):
    code = "broker_unavailable"
    title = "The broker is unavailable."
    message = "The broker does not respond. Jobs still run, they only start a little later."


# Tasks for the workers


class JobTask(NamedTuple):
    """A Celery task that runs a job: it has the job's id and no arguments."""

    job_id: UUID
    device_class: str
    priority: int = 6  # of the message, see `message_priority`


def message_priority(job_priority: int, *, attempt: int) -> int:
    """Return the priority of the message: 0, 3, 6 or 9, and 0 is delivered first.

    The broker delivers messages of one priority in the order in which they were sent. That is the
    order of the jobs table, except for a job that was interrupted and is dispatched again, which
    would lose its place before the jobs that have never run. Of a job priority only the sign
    counts, because Redis keeps a list for each message priority.
    """
    if job_priority != 0:
        return 0 if job_priority > 0 else 9
    return 3 if attempt > 0 else 6


class WorkerNotifier(Protocol):
    """Sends the workers the task that runs a job.

    Call `send` after the commit; it never raises.
    """

    def send(self, task: JobTask) -> None: ...

    def close(self) -> None: ...


class PollOnlyNotifier:
    """Without a broker: workers find the job at their next poll."""

    def send(self, task: JobTask) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class CeleryNotifier:
    """Sends tasks from its own thread, to the queue of the device class."""

    def __init__(self, url: str) -> None:
        self._app = _create_producer(url)
        self._pending: Queue[JobTask | None] = Queue(MAX_PENDING_TASKS)
        self._thread = threading.Thread(target=self._send_all, name="job-tasks", daemon=True)
        self._thread.start()

    def send(self, task: JobTask) -> None:
        """Queue the task and return at once, whatever state the broker is in."""
        with suppress(Full):
            self._pending.put_nowait(task)

    def close(self) -> None:
        """Send the pending tasks, for at most `_CLOSE_SECONDS`."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        with suppress(Full):
            self._pending.put(None, timeout=_CLOSE_SECONDS)
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._app.close()

    def _send_all(self) -> None:
        paused_until = 0.0
        while (task := self._pending.get()) is not None:
            if time.monotonic() < paused_until:
                continue
            try:
                self._send(task)
            except Exception as error:
                log.warning("could not send a task", job_id=str(task.job_id), error=str(error))
                paused_until = time.monotonic() + _FAILURE_PAUSE_SECONDS

    def _send(self, task: JobTask) -> None:
        self._app.send_task(
            TASK_NAME,
            task_id=str(task.job_id),
            queue=queue_name(task.device_class),
            priority=task.priority,
            retry=False,
        )


def open_worker_notifier(settings: Settings) -> WorkerNotifier:
    """Open the notifier of this installation. Raises `BrokerUrlInvalid`."""
    if settings.broker_url is None:
        return PollOnlyNotifier()
    return CeleryNotifier(validate_broker_url(settings.broker_url))


def validate_broker_url(url: str) -> str:
    """Return the broker URL if it is valid; the broker may be down. Raises `BrokerUrlInvalid`."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - reading it validates it
    except ValueError as error:
        raise BrokerUrlInvalid(problem="it cannot be parsed as a URL") from error
    if parts.scheme not in BROKER_SCHEMES:
        schemes = ", ".join(BROKER_SCHEMES)
        raise BrokerUrlInvalid(problem=f"the scheme {parts.scheme!r} is not one of {schemes}")
    return url


def queue_name(device_class: str) -> str:
    """Return the name of the Celery queue of a device class."""
    return f"loraworks.{device_class}"


def broker_queues(device_classes: Iterable[str]) -> list[BrokerQueue]:
    """Return the Celery queues of these device classes, bound to the default exchange.

    Their aliases are the device classes, for `celery worker -Q gpu`. With a named exchange, a
    broker that was flushed accepts messages and drops them, since it has lost the bindings.
    """
    return [
        BrokerQueue(queue_name(each), Exchange(""), routing_key=queue_name(each), alias=str(each))
        for each in device_classes
    ]


def require_writable_broker(url: str) -> None:
    """Raise `BrokerUnavailable` unless the broker accepts a write.

    A read is not enough: a full broker, and a former primary after a failover, refuse writes only.
    """
    address = url.replace("redis+socket://", "unix://", 1)  # Celery's spelling to redis-py's
    timeouts = {
        "socket_connect_timeout": CHECK_TIMEOUT_SECONDS,
        "socket_timeout": CHECK_TIMEOUT_SECONDS,
    }
    try:
        with redis.Redis.from_url(address, retry=Retry(NoBackoff(), 0), **timeouts) as client:
            client.set("loraworks.ready", "", px=1)
    except (redis.RedisError, OSError, ValueError) as error:
        raise BrokerUnavailable() from error


def _create_producer(url: str) -> Celery:
    app = Celery("loraworks", broker=url, set_as_current=False)
    app.conf.update(
        task_queues=broker_queues(DeviceClass),
        task_serializer="json",
        task_ignore_result=True,
        broker_pool_limit=1,
        # Short timeouts, so that a hanging broker blocks the sender only briefly.
        broker_pool_acquire_timeout=2,
        broker_transport_options={
            "socket_connect_timeout": 1,
            "socket_timeout": 1,
            "max_retries": 0,
        },
    )
    return app


# Jobs that wait: re-dispatch and queue timeout


def take_due_for_dispatch(session: Session, *, redispatch_seconds: float) -> list[JobTask]:
    """Return tasks of due jobs, for the caller to send, and mark the jobs as dispatched.

    These are at most `MAX_DISPATCHED` jobs, the first in claim order, so that the notifier has room
    for them; the others follow in the next round.

    A requeued job is dispatched once it is due. Since a task may be lost with its broker, it is
    sent again after `redispatch_seconds`. The interval doubles each time, up to a day, because the
    broker keeps every copy until a worker is free.
    """
    interval = backoff_expression(
        redispatch_seconds, Job.dispatch_count, max_seconds=MAX_REDISPATCH_SECONDS
    )
    overdue = or_(Job.dispatched_at.is_(None), Job.dispatched_at + interval <= now())
    first = (
        select(Job.id)
        .where(CLAIMABLE, Job.run_after <= now(), overdue)
        .order_by(Job.priority.desc(), Job.created_at, Job.id)
        .limit(MAX_DISPATCHED)
    )
    rows = session.execute(
        update(Job)
        .where(Job.id.in_(first), CLAIMABLE, overdue)
        .values(dispatched_at=now(), dispatch_count=Job.dispatch_count + 1)
        .returning(Job.id, Job.device_class, Job.priority, Job.attempt, Job.created_at),
        execution_options=NO_SESSION_SYNC,
    )
    return [  # in claim order, which RETURNING does not promise
        JobTask(row.id, row.device_class, message_priority(row.priority, attempt=row.attempt))
        for row in sorted(rows, key=lambda row: (-row.priority, row.created_at, row.id))
    ]


def mark_waiting_for_storage(
    session: Session, device_classes: Collection[DeviceClass], *, message: str
) -> None:
    """Show on the due jobs of these device classes that they wait for the workers' storage.

    They stay due: no attempt is made meanwhile, so an outage of any length leaves no attempts.
    """
    session.execute(
        update(Job)
        .where(
            CLAIMABLE,
            Job.device_class.in_(device_classes),
            Job.run_after <= now(),
        )
        .where(Job.waiting_code.is_distinct_from(STORAGE_UNAVAILABLE))
        .values(waiting_since=now(), waiting_code=STORAGE_UNAVAILABLE, waiting_message=message),
        execution_options=NO_SESSION_SYNC,
    )


def clear_waiting_for_storage(session: Session, device_classes: Collection[DeviceClass]) -> None:
    """Undo `mark_waiting_for_storage` once a worker for these device classes is healthy.

    The jobs count as queued from now. A job whose own attempt hit the outage keeps its reason until
    it makes progress.
    """
    marked = Job.waiting_since >= Job.run_after
    session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, Job.device_class.in_(device_classes), marked)
        .where(Job.waiting_code == STORAGE_UNAVAILABLE)
        .values(**CLEARED_WAIT, run_after=now()),
        execution_options=NO_SESSION_SYNC,
    )


def make_all_queued_jobs_due(session: Session) -> None:
    """Make every queued job due since now.

    After a clock step, its `run_after` may be hours away, or hours ago as if it had waited too
    long. A due job that shows that it waits for storage cannot time out; it stays as it is, since
    `clear_waiting_for_storage` compares its times.
    """
    can_time_out = Job.waiting_code.is_distinct_from(STORAGE_UNAVAILABLE)
    session.execute(
        update(Job)
        .where(Job.state == JobState.QUEUED, or_(Job.run_after > now(), can_time_out))
        .values(run_after=now()),
        execution_options=NO_SESSION_SYNC,
    )


def fail_queue_timeouts(session: Session, *, queue_seconds: float) -> list[UUID]:
    """Fail the jobs that have been due for longer than `queue_seconds`, and return their ids.

    Jobs that wait for unavailable storage are spared, and paused ones are not due.
    """
    message = f"Waited in the queue for over {queue_seconds:,.10g} s."
    rows = session.execute(
        update(Job)
        .where(CLAIMABLE, Job.run_after <= now() - queue_seconds)
        .where(Job.waiting_code.is_distinct_from(STORAGE_UNAVAILABLE))
        .values(
            state=JobState.FAILED,
            finished_at=now(),
            error_code=QUEUE_TIMEOUT,
            error_message=message,
            **CLEARED_WAIT,
            stream_seq=Job.stream_seq + 1,
        )
        .returning(Job.id, Job.attempt, Job.stream_seq),
        execution_options=NO_SESSION_SYNC,
    ).all()
    for row in rows:
        add_job_event(
            session, row, EventContent("failed", "error", message, {"code": QUEUE_TIMEOUT})
        )
        publish_training_job_ended(session, row.id)
    return [row.id for row in rows]
