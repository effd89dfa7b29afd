"""A worker: poller and reconciler beside each other, until it is told to leave."""

import sys
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

import structlog
from pydantic import ValidationError

from app import logging
from app.database import migrations
from app.errors import AppError
from app.resources import Resources, open_resources
from app.settings import Settings
from app.storage.permissions import keep_private
from worker import process_identity, workdir
from worker.devices import Device, Slots, chosen
from worker.garbage_collector import Sweeper
from worker.host_health import HostCheck
from worker.poller import Poller
from worker.reconciler import Reconciler
from worker.run_job import JobRunner

CLOSING_SECONDS = 30.0  # for the last transactions, after the grace of the trainings
LAST_WORD_SECONDS = 5.0  # to say that the worker leaves
BAD_SETTINGS = 78  # an exit status, as sysexits.h has it

Started = TypeVar("Started")

log = structlog.get_logger(__name__)


class Service:
    """Works in threads of its own, however the process is started and woken."""

    def __init__(self, resources: Resources, devices: Sequence[Device]) -> None:
        settings = resources.settings
        self._resources = resources
        self._owner = process_identity.this_worker()
        self._draining = threading.Event()
        self._told = SimpleQueue[None]()
        self._slots = Slots(devices, cpu_count=settings.slots, locks=settings.work_dir / "devices")
        host = HostCheck(resources)
        names = self._slots.names()
        self._reconciler = Reconciler(
            resources, self._owner, draining=self._draining, devices=names, host=host
        )
        self._reconciling = _thread(self._reconciler.run)
        self._sweeper = Sweeper(resources, draining=self._draining)
        runner = JobRunner(resources, draining=self._draining, host=host)
        self._poller = Poller(
            resources, self._owner, runner, self._slots, draining=self._draining, host=host
        )

    def start(self) -> None:
        """Begin to work. What a dead worker left running is killed before anything new starts."""
        self._reconciler.tick()
        self._reconciling.start()
        for work in (self._poller.run, self._sweeper.run, self._drain_when_told):
            _thread(work).start()
        log.info("ready", worker=self._owner.id, devices=self._slots.names())

    def wake(self) -> None:
        """A job waits: look for it now."""
        self._poller.wake()

    def drain(self) -> None:
        """Stop the trainings; their jobs go back to the queue. May be called by a signal handler,
        even while it is called already.
        """
        self._told.put(None)  # the only thing that is safe there

    def wait(self) -> bool:
        """Drain, and wait for it. Whether every job was given back in time."""
        self.drain()
        grace = self._resources.settings.stop_grace_seconds
        idle = self._draining.wait(CLOSING_SECONDS) and self._slots.wait_idle(
            grace + CLOSING_SECONDS
        )
        self._reconciler.leave()
        self._reconciling.join(LAST_WORD_SECONDS)
        log.info("left", idle=idle)
        return idle

    def close(self) -> None:
        """Give everything back."""
        self._resources.close()

    def _drain_when_told(self) -> None:
        self._told.get()
        log.info("draining")
        self._draining.set()
        self._poller.wake()


def or_exit(start: Callable[[Settings], Started]) -> Started:
    """What `start` makes of the settings. What keeps it from that is told in the log, and the
    process ends with `BAD_SETTINGS`.
    """
    logging.configure()
    keep_private()
    try:
        settings = Settings()
        logging.configure(settings.log_level)
        return start(settings)
    except (AppError, ValidationError) as error:
        code = getattr(error, "code", "invalid_setting")
        log.error("the worker cannot start", code=code, error=str(error))
        sys.exit(BAD_SETTINGS)


def open_service(settings: Settings, *, devices: Sequence[Device] = ()) -> Service:
    """A worker that is ready to start, on the devices of the settings unless they are given.

    Raises `AppError` where data folder, database, store, broker, schema or devices are not as they
    must be.
    """
    resources = open_resources(settings)
    try:
        workdir.check_writable(settings)  # or it would take jobs, and run none
        migrations.check(resources.database)
        return Service(resources, devices or chosen(settings.devices))
    except BaseException:
        resources.close()
        raise


def _thread(work: Callable[[], None]) -> threading.Thread:
    return threading.Thread(target=work, name=work.__qualname__, daemon=True)
