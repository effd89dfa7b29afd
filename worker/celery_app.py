"""`celery -A worker.celery_app worker`: a worker that a broker wakes.

Hints are acknowledged before anything is done: a job belongs to whoever holds its lease in the
database, so a hint that is lost or comes twice changes nothing.
"""

import warnings
from typing import Any

from celery import Celery, signals
from celery.exceptions import SecurityWarning

from app.jobs.states import Lane
from app.queue.dispatch import BrokerUrlInvalid, broker_queues, checked_url
from app.settings import Settings
from worker.devices import chosen
from worker.entrypoints import Listener, Work
from worker.service import or_exit


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
        broker_transport="worker.transport:Transport",
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
