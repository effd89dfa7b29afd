"""Keeps one worker process alive until it is told to stop."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import Unreachable
from app.cli.options import DataDir
from app.cli.output import say, warn
from app.cli.preflight import hand_on, load_settings

BACK_OFF = (1, 2, 4, 8, 15, 30)  # seconds before the next start, by deaths in a row
STEADY_SECONDS = 60  # alive that long, and the deaths before are forgotten
DRAIN_EXTRA_SECONDS = 35  # beyond the grace of a training, for what is written after it
COMMAND = (sys.executable, "-P", "-m", "worker")  # -P: no module of the current folder


class WorkerProcess:
    """Starts `python -m worker`, and again with growing pauses whenever it dies."""

    def __init__(self, *, grace_seconds: float) -> None:
        self._grace = grace_seconds + DRAIN_EXTRA_SECONDS
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="worker-keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to drain; return at once."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it without mercy. The training below it notices and leaves."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def join(self) -> None:
        """Wait until it is gone; after its time to drain it is killed."""
        self._thread.join(self._grace)
        if self._thread.is_alive():
            warn("The worker did not stop in time and is killed; its job will run again.")
            self.kill()
            self._thread.join()

    def _signal(self, number: int) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def _keep(self) -> None:
        deaths = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            code = self._run()
            if self._stopping.is_set():
                return
            deaths = 1 if time.monotonic() - began > STEADY_SECONDS else deaths + 1
            pause = BACK_OFF[min(deaths, len(BACK_OFF)) - 1]
            warn(f"The worker ended with status {code}; it is started again in {pause} s.")
            self._stopping.wait(pause)

    def _run(self) -> int:
        # It leaves when its standard input closes, so it cannot outlive this process. In a session
        # of its own it gets no Ctrl-C from the terminal, only our SIGTERM.
        with subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
        ) as child:
            self._child = child
            if self._stopping.is_set():  # between the check and the start
                child.terminate()
            return child.wait()


# MERGED app.cli.worker
# `loraworks worker`: becomes the worker, known by its name only.

if TYPE_CHECKING:
    from app.settings import Settings

PYTHON = (sys.executable, "-P")  # -P: no module of the current folder
POLLING = (*PYTHON, "-m", "worker")
LISTENING = (*PYTHON, "-m", "celery", "-A", "worker.celery_app", "worker")
SILENT_SECONDS = 60  # without a sign of life, and the worker does not count as well

CheckOnly = Annotated[
    bool,
    typer.Option("--check", help="Start nothing; exit 4 unless one of this machine is well."),
]


def worker(data_dir: DataDir = None, check_only: CheckOnly = False) -> None:
    """Start a worker: woken through the broker if there is one, else polling the database.

    SIGTERM drains it: trainings save a checkpoint, their jobs go back to the queue.
    """
    settings = load_settings({"data_dir": data_dir})
    if check_only:
        _probe(settings)
        return
    hand_on(settings)
    command = LISTENING if settings.broker_url else POLLING
    # No process in between, so that signals reach the worker itself.
    os.execv(command[0], command)  # noqa: S606 - a list, no shell


def _probe(settings: "Settings") -> None:
    """Raises `Unreachable` unless a worker of this machine was heard of lately."""
    import socket

    from app.database.engines import open_database
    from app.queue import heartbeats

    database = open_database(settings)
    try:
        with database.read() as session:
            silence = heartbeats.silence(session, host=socket.gethostname())
    finally:
        database.close()
    if silence is None or silence > SILENT_SECONDS:
        since = "yet" if silence is None else f"for {silence:.0f} s"
        raise Unreachable(f"no worker of this machine was heard of {since}", "no_worker")
    say(f"A worker of this machine was heard of {silence:.0f} s ago.")
