"""`loraworks worker`, and the supervised worker process of `loraworks up`."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import ServiceUnreachableOrFailed
from app.cli.options import DataDir
from app.cli.output import print_line, print_warning
from app.cli.preflight import export_address_and_data_dir, load_settings_and_configure_process

RESTART_DELAYS = (1, 2, 4, 8, 15, 30)  # seconds until the next start, by consecutive failures
_STABLE_SECONDS = 60  # running that long resets the count of failures
DRAIN_EXTRA_SECONDS = 35  # for the last writes, after the stop grace of the trainings


class RestartingWorkerProcess:
    """Runs `python -m worker`, and restarts it with increasing delays when it exits."""

    def __init__(self, *, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds + DRAIN_EXTRA_SECONDS
        self._stopping = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(
            target=self._run_with_restarts, name="worker-restarter", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the worker to drain, and return at once."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the worker. Its training process notices and exits."""
        self._stopping.set()
        self._signal(signal.SIGKILL)

    def join_or_kill(self) -> None:
        """Wait until the worker has exited. Kill it when its time to drain is over."""
        self._thread.join(self._grace_seconds)
        if self._thread.is_alive():
            print_warning("The worker did not stop in time. Killing it; its jobs will run again.")
            self.kill()
            self._thread.join()

    def _signal(self, signum: int) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(signum)

    def _run_with_restarts(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            code = self._run()
            if self._stopping.is_set():
                return
            failures = 1 if time.monotonic() - started > _STABLE_SECONDS else failures + 1
            delay = RESTART_DELAYS[min(failures, len(RESTART_DELAYS)) - 1]
            print_warning(f"The worker exited with status {code}. Restarting in {delay} s.")
            self._stopping.wait(delay)

    def _run(self) -> int:
        # The worker exits when its standard input closes, so it cannot outlive this process. In its
        # own session it receives no Ctrl-C from the terminal, only our SIGTERM.
        with subprocess.Popen(
            POLLING_COMMAND,
            stdin=subprocess.PIPE,
            stdout=sys.stderr.fileno(),
            start_new_session=True,
        ) as child:
            self._child = child
            if self._stopping.is_set():  # between the check and the start
                child.terminate()
            return child.wait()


if TYPE_CHECKING:
    from app.settings import Settings

# The worker is started by name: `app` must not import it.
PYTHON = (sys.executable, "-P")  # -P: do not import from the current folder
POLLING_COMMAND = (*PYTHON, "-m", "worker")
CELERY_COMMAND = (*PYTHON, "-m", "celery", "-A", "worker.celery_app", "worker")
MAX_HEARTBEAT_AGE_SECONDS = 60  # of a healthy worker, unless it reports in less often

CheckOnly = Annotated[
    bool,
    typer.Option(
        "--check", help="Do not start a worker; exit with 4 unless one on this host is healthy."
    ),
]


def worker(data_dir: DataDir = None, check_only: CheckOnly = False) -> None:
    """Start a worker. With a broker it is a Celery worker, which also polls the database.

    SIGTERM drains it: training runs save a checkpoint, and their jobs are requeued.
    """
    settings = load_settings_and_configure_process({"data_dir": data_dir})
    if check_only:
        _check_heartbeat(settings)
        return
    export_address_and_data_dir(settings)
    command = CELERY_COMMAND if settings.broker_url else POLLING_COMMAND
    # Replace this process, so that signals reach the worker itself.
    os.execv(command[0], command)  # noqa: S606 - a list, no shell


def _check_heartbeat(settings: "Settings") -> None:
    """Raise `ServiceUnreachableOrFailed` unless a worker on this host has reported in recently."""
    import socket

    from app.database.engines import open_database
    from app.queue import heartbeats

    database = open_database(settings)
    try:
        with database.read() as session:
            age_seconds = heartbeats.seconds_since_host_heartbeat(
                session, host=socket.gethostname()
            )
    finally:
        database.close()
    max_age_seconds = max(MAX_HEARTBEAT_AGE_SECONDS, 3 * settings.reconcile_seconds)
    if age_seconds is None or age_seconds > max_age_seconds:
        problem = (
            "no worker runs on this host"
            if age_seconds is None
            else f"no worker on this host has reported in for {age_seconds:.0f} s"
        )
        raise ServiceUnreachableOrFailed(problem, "no_worker")
    print_line(f"A worker on this host reported in {age_seconds:.0f} s ago.")
