"""`python -m worker`: trains the jobs of an embedded installation.

SIGTERM or SIGINT drains: trainings are stopped, their jobs go back to the queue, exit 0. The same
happens when standard input is a pipe and closes: whoever started the worker is gone.
"""

import os
import select
import signal
import stat
import sys
import threading

import structlog
from pydantic import ValidationError

from app import logs
from app.db import migrate
from app.errors import AppError
from app.resources import Resources, open_resources
from app.settings import Settings
from worker import identity
from worker.launch import Launcher, ProcessLauncher
from worker.poller import Poller
from worker.reconciler import Reconciler
from worker.run_job import JobRunner
from worker.slots import Slots

CLOSING_SECONDS = 30.0  # for the last transactions, after the grace of the trainings
BAD_SETTINGS = 78

log = structlog.get_logger("worker")


def main(launcher: Launcher | None = None) -> int:
    """The exit status."""
    logs.configure()
    try:
        settings = Settings()
        logs.configure(settings.log_level)
        resources = open_resources(settings)
        migrate.check(resources.database)
    except (AppError, ValidationError) as error:
        log.error("the worker cannot start", error=str(error))
        return BAD_SETTINGS
    try:
        return serve(resources, launcher or ProcessLauncher())
    finally:
        resources.close()


def serve(resources: Resources, launcher: Launcher) -> int:
    """Work until told to leave. 0: every job was given back; 1: one was not in time."""
    settings = resources.settings
    owner = identity.this_worker()
    draining = threading.Event()
    slots = Slots(settings.slots)
    reconciler = Reconciler(resources, owner, draining=draining)
    runner = JobRunner(resources, launcher, draining=draining)
    poller = Poller(resources, owner, runner, slots, draining=draining)
    reasons = [_signals(), *_lifeline()]
    reconciler.tick()  # kills what a dead worker left running before anything new starts
    for work in (poller, reconciler):
        threading.Thread(target=work.run, name=type(work).__name__, daemon=True).start()
    log.info("ready", worker=owner.id, slots=settings.slots)
    select.select(reasons, [], [])
    log.info("draining")
    draining.set()
    idle = slots.wait_idle(settings.stop_grace_seconds + CLOSING_SECONDS)
    log.info("left", idle=idle)
    return 0 if idle else 1


def _signals() -> int:
    """A descriptor that becomes readable with the first signal to leave."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader


def _lifeline() -> list[int]:
    """Standard input, if it is a pipe. A terminal or /dev/null says nothing about a parent."""
    return [0] if stat.S_ISFIFO(os.fstat(0).st_mode) else []


if __name__ == "__main__":
    sys.exit(main())
