"""`celery -A worker.celery_app worker`: a worker whose jobs are Celery tasks.

The service sends a task for each queued job, with the job's id as its id. A task runs its job in a
slot of the worker if it can claim it in the jobs table, which decides alone who may write. So a
task is acknowledged before its job starts, and one that is lost, repeated or late does no harm: a
job without a task is found by polling, and a task whose job is not in the queue ends at once.
"""

import os
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from celery import Celery, Task, bootsteps, signals
from celery.concurrency.thread import TaskPool
from celery.exceptions import Ignore, Retry, SecurityWarning, Terminated
from celery.worker.components import Pool
from celery.worker.consumer import Consumer
from celery.worker.loops import asynloop
from celery.worker.state import maybe_shutdown
from kombu import Message
from kombu.common import ignore_errors
from redis import ResponseError

from app.database.errors import OUTAGE_ERRORS
from app.queue.dispatch import (
    TASK_NAME,
    BrokerUrlInvalid,
    broker_queues,
    validate_broker_url,
)
from app.queue.enums import DeviceClass, JobState
from app.settings import Settings
from worker.devices import Device, count_slots, select_devices
from worker.failures import CeleryOptionInvalid
from worker.service import WorkerService, open_service, start_or_exit

EXIT_DRAIN_TIMEOUT = 1
EXIT_TERMINATED = 1
MAX_LOGGED_CHARS = 200  # of a malformed message
REFUSAL_DELAY_SECONDS = 2.0  # between two tries at a broker that refuses commands

log = structlog.get_logger(__name__)


# The task


class JobFailed(Exception):
    """The job of a task has failed; the message starts with its error code."""


def run_job(task: Task) -> str:
    """Run the job that has the id of this task.

    The task ends in the state of its job: SUCCESS, FAILURE or REVOKED (cancelled); RETRY if the job
    is back in the queue, still there, or paused. It sends no event if the job is already running.
    """
    service: WorkerService = task.app.service
    try:
        job = service.run_job(UUID(task.request.id))
    except OUTAGE_ERRORS as error:
        raise Retry("The database is unreachable.") from error
    except MemoryError as error:  # otherwise Celery would never release the slot of the task
        raise Retry("The worker is out of memory.") from error
    if job is None:
        raise Terminated("The job was deleted.")
    match job.state:
        case JobState.SUCCEEDED:
            return "succeeded"
        case JobState.FAILED:
            raise JobFailed(f"{job.error_code}: {job.error_message}")
        case JobState.RUNNING:
            raise Ignore("The job is already running.")
        case JobState.QUEUED:
            raise Retry("The job is paused." if job.paused else "The job is queued.")
        case _:
            raise Terminated("The job was cancelled.")


# The worker


class WorkerServiceBootstep(bootsteps.StartStopStep):  # type: ignore[misc]
    """Runs our worker inside Celery's. It starts before the broker connection and works without.

    It stops before the pool of threads, which waits for running tasks without a limit.
    """

    requires = (Pool,)

    def __init__(self, worker: Any, **_: Any) -> None:
        self._service = worker.app.service = start_or_exit(partial(_open_service, worker))
        signals.worker_shutting_down.connect(self._on_shutdown)

    def start(self, _worker: Any) -> None:
        self._service.start()

    def close(self, _worker: Any) -> None:
        """Begin to drain, also on `celery control shutdown`, which sends no signal."""
        self._service.request_drain()

    def stop(self, _worker: Any) -> None:
        drained = self._service.requeue_jobs_and_wait()
        self._service.close()
        if not drained:
            os._exit(EXIT_DRAIN_TIMEOUT)  # Python waits for the threads of the pool

    def terminate(self, _worker: Any) -> None:
        """Exit at once: the trainings end with this process, and their jobs run again."""
        os._exit(EXIT_TERMINATED)

    def _on_shutdown(self, **_: Any) -> None:
        self._service.request_drain()


def _open_service(worker: Any, settings: Settings) -> WorkerService:
    """Open the service on the devices that the options of `celery worker` select.

    Raises `CeleryOptionInvalid` and the errors of `open_service`.
    """
    _check_options(worker)
    devices = _select_queues(worker.app)
    slots = count_slots(devices, cpu_slots=settings.concurrency)
    worker.concurrency = worker.min_concurrency = slots
    return open_service(settings, devices=devices)


def _check_options(worker: Any) -> None:
    if worker.pool_cls is not TaskPool:
        reason = "each job needs a thread of this process. Leave the option out."
        raise CeleryOptionInvalid(option="--pool", reason=reason)
    if worker.autoscale or worker.concurrency != worker.app.conf.worker_concurrency:
        option = "--autoscale" if worker.autoscale else f"--concurrency={worker.concurrency}"
        reason = (
            f"this worker has {worker.app.conf.worker_concurrency} slots. "
            "Set LORAWORKS_CONCURRENCY for the CPU, and LORAWORKS_DEVICES for GPUs."
        )
        raise CeleryOptionInvalid(option=option, reason=reason)


def _select_queues(app: Celery) -> Sequence[Device]:
    """Return the devices whose queues `-Q` selects, all by default.

    Every worker also consumes the queue `any`, whose jobs run on every device.
    """
    queues = app.amqp.queues
    selected = {queue.alias for queue in queues.consume_from.values()}
    devices = [each for each in app.devices if each.device_class in selected]
    if not devices:
        available = ", ".join(sorted({each.device_class for each in app.devices}))
        reason = f"LORAWORKS_DEVICES selects no device for that. It selects: {available}."
        raise CeleryOptionInvalid(option=f"-Q {','.join(sorted(selected))}", reason=reason)
    queues.select_add(queues[DeviceClass.ANY])
    return devices


class ResilientConsumer(Consumer):  # type: ignore[misc]
    """Celery's consumer, which survives malformed messages and a broker that refuses commands.

    Celery's own handling of messages ends the process for many malformed ones, such as invalid JSON
    or a list as the task name.
    """

    connection: Any

    def __init__(self, *args: Any, worker_options: Any = None, **kwargs: Any) -> None:
        # With gossip each worker reads the events of all, and mingle takes a second of each start.
        disabled = {"without_gossip": True, "without_mingle": True}
        super().__init__(*args, worker_options={**(worker_options or {}), **disabled}, **kwargs)
        self._last_refusal = ""  # logged last; reset once the broker works again

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], None]:
        handle = super().create_task_handler(*args, **kwargs)

        def on_message(message: Message) -> None:
            try:
                _normalize_message(message)
            except Exception as error:
                body = repr(message.body[:MAX_LOGGED_CHARS])
                log.warning(
                    "malformed_message", problem=repr(error)[:MAX_LOGGED_CHARS], message=body
                )
                message.ack()
            else:
                handle(message)

        return on_message

    def loop(self, *args: Any) -> None:
        """Listen. A message that kombu cannot even decode costs only the connection."""
        self._last_refusal = ""
        try:
            asynloop(*args)
        except self.connection_errors + self.channel_errors:
            raise
        except Exception as error:
            maybe_shutdown()  # Celery's handler of SIGQUIT asks more than a pool of threads can do
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


def _normalize_message(message: Message) -> None:
    """Leave only the task's name and id. Raise an error of any type for a malformed message.

    The task takes no arguments. A header of another type than Celery expects, such as a number as
    the time limit, would occupy a slot of Celery's pool forever.
    """
    if message.headers["task"] != TASK_NAME:
        raise LookupError(f"there is no task {message.headers['task']!r}")
    message.headers = {"task": TASK_NAME, "id": str(UUID(message.headers["id"]))}
    message.body, message.content_type = "[[], {}, {}]", "application/json"
    message.content_encoding = "utf-8"


def create_celery_app(settings: Settings) -> Celery:
    """Create the Celery app. Raises `BrokerUrlInvalid`, and as `select_devices`."""
    if settings.broker_url is None:
        raise BrokerUrlInvalid(problem="none is set, so use `python -m worker`")
    app = Celery("loraworks", broker=validate_broker_url(settings.broker_url))
    app.devices = select_devices(
        settings.devices
    )  # `WorkerServiceBootstep` reuses them: listing is slow
    app.conf.update(
        task_queues=broker_queues(DeviceClass),
        task_create_missing_queues=False,
        task_ignore_result=True,
        accept_content=["json"],
        worker_consumer=ResilientConsumer,
        worker_pool="threads",
        worker_concurrency=count_slots(app.devices, cpu_slots=settings.concurrency),
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_enable_prefetch_count_reduction=False,
        worker_enable_remote_control=settings.remote_control == "on",
        worker_send_task_events=True,
        # Concerns tasks with late acknowledgment only. This silences a deprecation warning at each
        # lost connection.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        # Queues that expire would require permission to run scripts in the broker.
        control_queue_expires=None,
        event_queue_expires=None,
        broker_channel_error_retry=True,  # a broker that is full or read-only refuses commands
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # retry forever
        broker_transport_options={
            # A task that is lost with its worker is dispatched again from the jobs table.
            "ack_emulation": False,
            "socket_connect_timeout": 5,  # a hanging broker must not delay the drain
            "socket_timeout": 5,
            "socket_keepalive": True,
        },
    )
    # The queues without `-Q`.
    app.amqp.queues.select([DeviceClass.ANY, *{each.device_class for each in app.devices}])
    app.task(name=TASK_NAME, bind=True, throws=(JobFailed, Terminated))(run_job)
    app.steps["worker"].add(WorkerServiceBootstep)
    return app


def _skip_celery_logging(**_: Any) -> None:
    """Do nothing. A receiver of this signal keeps Celery from configuring logging itself."""


signals.setup_logging.connect(_skip_celery_logging)

# Celery warns about pickled messages at every start as root, in plain lines on standard error.
warnings.simplefilter("ignore", SecurityWarning)

# Celery loads the app from this module, so a configuration error exits here, at import.
app = start_or_exit(create_celery_app)
