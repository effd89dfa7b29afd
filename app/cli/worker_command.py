"""`loraworks worker`: becomes the worker, known by its name only."""

import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.errors import Unreachable
from app.cli.options import DataDir
from app.cli.output import say
from app.cli.preflight import hand_on, load_settings

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
