"""Redis as it is needed for hints: nothing is put back.

A hint that was taken and not answered is gone, and the next one comes from the jobs table. So kombu
need not look for such messages, for which it would want the right to run scripts in the broker.

A broker that refuses a command, as one that is full or takes no writes, is as good as away: Celery
would end the process otherwise.
"""

import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import structlog
from celery import Celery, bootsteps, signals
from celery.exceptions import SecurityWarning
from celery.worker.consumer import Consumer
from celery.worker.loops import asynloop
from kombu import Message
from kombu.common import ignore_errors
from kombu.transport import redis
from pydantic import Field, TypeAdapter
from redis import ResponseError

from app.queue.dispatch import TASK, BrokerUrlInvalid, Hint, broker_queues, checked_url
from app.queue.states import Lane
from app.settings import Settings
from worker.devices import chosen
from worker.service import open_service, or_exit


class _Window(redis.QoS):  # type: ignore[misc]
    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Nothing to look for."""


class _Channel(redis.Channel):  # type: ignore[misc]
    QoS = _Window


class Transport(redis.Transport):  # type: ignore[misc]
    """For `broker_transport`."""

    Channel = _Channel
    connection_errors = (*redis.Transport.connection_errors, ResponseError)


# MERGED worker.celery_app
# Where Celery enters the worker: a hint rings the bell, a signal begins the drain.
#
# Celery only listens. Which job runs, and whether one does, is decided by the jobs table.

NOT_IN_TIME = 1
LONGEST_SHOWN = 200  # characters of a message that is none of ours
REFUSED_SECONDS = 2.0  # between two tries at a broker that answers and refuses

log = structlog.get_logger(__name__)


# What Celery puts into a message: arguments, keyword arguments, and what we have no use for.
_Body = TypeAdapter(tuple[tuple[Hint], Annotated[dict[str, Any], Field(max_length=0)], Any])


class Work(bootsteps.StartStopStep):  # type: ignore[misc]
    """The worker inside of Celery's. It starts before the broker is asked for anything, and works
    on without one.
    """

    def __init__(self, worker: Any, **_: Any) -> None:
        self._service = worker.service = or_exit(partial(open_service, devices=worker.app.devices))
        signals.worker_shutting_down.connect(self._leave)

    def start(self, _worker: Any) -> None:
        self._service.start()

    def stop(self, worker: Any) -> None:
        if not self._service.wait():
            worker.exitcode = NOT_IN_TIME
        self._service.close()

    def terminate(self, _worker: Any) -> None:
        """Without waiting: the trainings end with this process, and their jobs run again."""

    def _leave(self, **_: Any) -> None:
        self._service.drain()


class Listener(Consumer):  # type: ignore[misc]
    """Hears hints and nothing else: no tasks, no talk among workers, who meet in the database.

    Anybody who reaches the broker may put anything there. Celery's own way with messages ends the
    process at many of them, as at one that is no JSON or has a list for a name.
    """

    connection: Any

    def __init__(self, *args: Any, worker_options: Any = None, **kwargs: Any) -> None:
        quiet = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
        super().__init__(*args, worker_options={**(worker_options or {}), **quiet}, **kwargs)
        self._refusal = ""  # the last that was told, until the broker is well

    def create_task_handler(self, *_: Any, **__: Any) -> Callable[[Message], None]:
        return self._hear

    def loop(self, *args: Any) -> None:
        """Listen. What is not even a message for the broker's library costs the connection only."""
        self._refusal = ""
        try:
            asynloop(*args)
        except self.connection_errors:
            raise
        except Exception as error:
            log.warning("malformed_hint", problem=repr(error)[:LONGEST_SHOWN])
            raise ConnectionResetError("the broker sent what is no message") from error

    def on_connection_error_after_connected(self, error: Exception) -> None:
        """Celery tries again at once, and tells it each time: right for a lost connection only."""
        if not isinstance(error, ResponseError):
            super().on_connection_error_after_connected(error)
            return
        if str(error) != self._refusal:
            self._refusal = str(error)
            log.warning("the broker refuses, so jobs are found by polling", problem=self._refusal)
        connection, self.connection = self.connection, None
        ignore_errors(connection, connection.close)
        time.sleep(REFUSED_SECONDS)

    def _hear(self, message: Message) -> None:
        # First of all, so that none comes back: a job is kept by its row, not by its message.
        message.ack()
        try:
            _check(message)
        except Exception as error:
            shown = repr(message.body)[:LONGEST_SHOWN]
            log.warning("malformed_hint", problem=repr(error)[:LONGEST_SHOWN], message=shown)
        else:
            self.controller.service.wake()


def _check(message: Message) -> None:
    """Raises whatever the wrong message leads to."""
    if message.headers["task"] != TASK:
        raise LookupError(f"there is no task {message.headers['task']!r}")
    _Body.validate_python(message.decode())


# MERGED worker.celery_app
# `celery -A worker.celery_app worker`: a worker that a broker wakes.
#
# Hints are acknowledged before anything is done: a job belongs to whoever holds its lease in the
# database, so a hint that is lost or comes twice changes nothing.


def listening(settings: Settings) -> Celery:
    """The application of Celery. Raises `BrokerUrlInvalid`, `GpuMissing`, `GpuDriverFails`."""
    if settings.broker_url is None:
        raise BrokerUrlInvalid(problem="there is none, so use `python -m worker`")
    app = Celery("loraworks", broker=checked_url(settings.broker_url))
    app.devices = chosen(settings.devices)  # for `Work`, too: asking for them takes a while
    app.conf.update(
        task_queues=broker_queues({Lane.ANY, *(each.lane for each in app.devices)}),
        task_create_missing_queues=False,
        accept_content=["json"],
        worker_consumer=Listener,
        worker_pool="threads",
        worker_concurrency=1,  # nothing runs there: devices and the database decide what does
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,
        # There are none. Otherwise Celery warns at each loss that this will be so one day.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        broker_transport="worker.celery_app:Transport",
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # for ever
        broker_transport_options={
            "socket_connect_timeout": 5,  # a broker that hangs must not hold up the drain
            "socket_timeout": 5,
            "socket_keepalive": True,
        },
    )
    app.steps["worker"].add(Work)
    return app


def _set_up_logging(**_: Any) -> None:
    """Its being heard keeps Celery from setting up logs of its own kind."""


signals.setup_logging.connect(_set_up_logging)

# Plain lines on standard error, at every start as root. They are about pickled messages.
warnings.simplefilter("ignore", SecurityWarning)

# Celery wants a module with an application in it, so this is where the process may end.
app = or_exit(listening)
