"""`celery -A worker.celery_app worker`: a worker that is woken by a broker.

Celery only listens for messages and signals: a message wakes the poller, a signal starts the drain.
The jobs table decides which job runs, and the worker that holds its lease owns it. So messages are
acknowledged before anything is done: a message that is lost or delivered twice changes nothing.
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

from app.queue.dispatch import (
    TASK_NAME,
    BrokerUrlInvalid,
    JobMessage,
    broker_queues,
    validate_broker_url,
)
from app.queue.states import DeviceClass
from app.settings import Settings
from worker.devices import select_devices
from worker.service import open_service, start_or_exit


class _NoRestoreQoS(redis.QoS):  # type: ignore[misc]
    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Restore nothing: messages are acknowledged at once."""


class _NoRestoreChannel(redis.Channel):  # type: ignore[misc]
    QoS = _NoRestoreQoS


class NoRestoreTransport(redis.Transport):  # type: ignore[misc]
    """Redis transport that never restores unacknowledged messages.

    A lost message is dispatched again from the jobs table. Restoring would also require permission
    to run scripts in the broker.
    A broker that refuses a command (it is full, or read-only) is treated like a lost connection;
    otherwise Celery would end the process.
    """

    Channel = _NoRestoreChannel
    connection_errors = (*redis.Transport.connection_errors, ResponseError)


EXIT_DRAIN_TIMEOUT = 1
MAX_LOGGED_CHARS = 200  # of a malformed message
REFUSAL_DELAY_SECONDS = 2.0  # between two tries at a broker that refuses commands

log = structlog.get_logger(__name__)


# The body of a Celery message: positional arguments, keyword arguments, and an unused embed.
_MESSAGE_BODY = TypeAdapter(
    tuple[tuple[JobMessage], Annotated[dict[str, Any], Field(max_length=0)], Any]
)


class WorkerStep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Runs our worker inside Celery's. It starts before the broker connection and works without."""

    def __init__(self, worker: Any, **_: Any) -> None:
        self._service = worker.service = start_or_exit(
            partial(open_service, devices=worker.app.devices)
        )
        signals.worker_shutting_down.connect(self._on_shutdown)

    def start(self, _worker: Any) -> None:
        self._service.start()

    def stop(self, worker: Any) -> None:
        if not self._service.drain_and_wait():
            worker.exitcode = EXIT_DRAIN_TIMEOUT
        self._service.close()

    def terminate(self, _worker: Any) -> None:
        """Stop without waiting: the trainings end with this process, and their jobs run again."""

    def _on_shutdown(self, **_: Any) -> None:
        self._service.drain()


class WakeUpConsumer(Consumer):  # type: ignore[misc]
    """Wakes the poller on each message. Executes no tasks and does not talk to other workers.

    Anybody with access to the broker can send any message. Celery's own handling of messages ends
    the process for many malformed ones, such as invalid JSON or a list as the task name.
    """

    connection: Any

    def __init__(self, *args: Any, worker_options: Any = None, **kwargs: Any) -> None:
        disabled = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
        super().__init__(*args, worker_options={**(worker_options or {}), **disabled}, **kwargs)
        self._last_refusal = ""  # logged last; reset once the broker works again

    def create_task_handler(self, *_: Any, **__: Any) -> Callable[[Message], None]:
        return self._on_message

    def loop(self, *args: Any) -> None:
        """Listen. A message that kombu cannot even decode costs only the connection."""
        self._last_refusal = ""
        try:
            asynloop(*args)
        except self.connection_errors:
            raise
        except Exception as error:
            log.warning("malformed_message", problem=repr(error)[:MAX_LOGGED_CHARS])
            raise ConnectionResetError("the broker sent an undecodable message") from error

    def on_connection_error_after_connected(self, error: Exception) -> None:
        """Wait and log once if the broker refuses commands.

        Celery reconnects at once and logs every try, which suits only a lost connection.
        """
        if not isinstance(error, ResponseError):
            super().on_connection_error_after_connected(error)
            return
        if str(error) != self._last_refusal:
            self._last_refusal = str(error)
            log.warning("the broker refuses commands; polling for jobs", problem=self._last_refusal)
        connection, self.connection = self.connection, None
        ignore_errors(connection, connection.close)
        time.sleep(REFUSAL_DELAY_SECONDS)

    def _on_message(self, message: Message) -> None:
        # Acknowledge first, so that no message is redelivered: jobs live in the database.
        message.ack()
        try:
            _validate_message(message)
        except Exception as error:
            body = repr(message.body)[:MAX_LOGGED_CHARS]
            log.warning("malformed_message", problem=repr(error)[:MAX_LOGGED_CHARS], message=body)
        else:
            self.controller.service.wake()


def _validate_message(message: Message) -> None:
    """Raise an error of any type for a malformed message."""
    if message.headers["task"] != TASK_NAME:
        raise LookupError(f"there is no task {message.headers['task']!r}")
    _MESSAGE_BODY.validate_python(message.decode())


def create_celery_app(settings: Settings) -> Celery:
    """Create the Celery app. Raises `BrokerUrlInvalid`, `GpuMissing`, `GpuDriverFailed`."""
    if settings.broker_url is None:
        raise BrokerUrlInvalid(problem="none is set, so use `python -m worker`")
    app = Celery("loraworks", broker=validate_broker_url(settings.broker_url))
    app.devices = select_devices(settings.devices)  # `WorkerStep` reuses them: listing is slow
    app.conf.update(
        task_queues=broker_queues({DeviceClass.ANY, *(each.device_class for each in app.devices)}),
        task_create_missing_queues=False,
        accept_content=["json"],
        worker_consumer=WakeUpConsumer,
        worker_pool="threads",
        worker_concurrency=1,  # Celery's pool runs nothing; jobs have threads of their own
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_remote_control=False,
        # There are no such tasks. This silences a deprecation warning at each lost connection.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        broker_transport="worker.celery_app:NoRestoreTransport",
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # retry forever
        broker_transport_options={
            "socket_connect_timeout": 5,  # a hanging broker must not delay the drain
            "socket_timeout": 5,
            "socket_keepalive": True,
        },
    )
    app.steps["worker"].add(WorkerStep)
    return app


def _skip_celery_logging(**_: Any) -> None:
    """Do nothing. A receiver of this signal keeps Celery from configuring logging itself."""


signals.setup_logging.connect(_skip_celery_logging)

# Celery warns about pickled messages at every start as root, in plain lines on standard error.
warnings.simplefilter("ignore", SecurityWarning)

# Celery loads the app from this module, so a configuration error exits here, at import.
app = start_or_exit(create_celery_app)
