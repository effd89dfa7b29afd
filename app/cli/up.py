"""What the service says of itself once it can be used."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
import uvicorn
from fastapi import FastAPI
from uvicorn.importer import import_from_string

from app.auth.repository import usable
from app.auth.secrets import load_pepper
from app.cli.client import Client
from app.cli.errors import Unreachable
from app.cli.options import AsJson, DataDir, Host, Port
from app.cli.output import facts, json_line, say, warn
from app.cli.preflight import address, alone, hand_on, listen, load_settings, new_admin_key
from app.cli.worker import WorkerProcess
from app.database import migrations
from app.http.connections import protocol
from app.resources import open_resources
from app.settings import Settings

if TYPE_CHECKING:
    from app.settings import Settings


def announcement(
    settings: "Settings", *, admin_key: str | None = None, as_json: bool = False
) -> Callable[[], None]:
    """Prints where the service is: for people, or one line of JSON.

    A new admin key is shown on a terminal. Anywhere else it would stay, as in the log of a
    container, so it goes into a file, which is named. Raises `DataFolderUnusable`.
    """
    on_terminal = sys.stdout.isatty() and not as_json
    file = _keep(settings, admin_key) if admin_key and not on_terminal else None
    url = address(settings.host, settings.port)
    ready = {"url": url, "docs": f"{url}/docs", "data_dir": str(settings.data_dir)}

    def announce() -> None:
        if as_json:
            json_line({**ready, "admin_key_file": str(file) if file else None})
            return
        facts([("API", url), ("docs", ready["docs"]), ("data", ready["data_dir"])])
        if file:
            say(f"The admin key is in {file}, for its owner alone. Keep it and delete the file.")
        elif admin_key:
            say(f"Admin key, shown only this once: {admin_key}", style="bold")
        say("Ready. Ctrl-C stops it.")

    return announce


def _keep(settings: "Settings", admin_key: str) -> Path:
    from app.resources import using_data_folder

    file = settings.data_dir.absolute() / "admin-key"
    with using_data_folder(settings):
        file.unlink(missing_ok=True)  # of a key that was revoked
        mode = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(file, mode, 0o600), "w", encoding="utf-8") as opened:
            opened.write(admin_key + "\n")
    return file


# MERGED app.cli.up
# Runs the API in this process and a worker below it, until a signal.

NOTICE_SECONDS = 3.0  # from "not ready" to the end of listening: who sends requests must see it
API_GRACE_SECONDS = 30  # for requests under way
SLOW_SECONDS = 30  # until a start is called slow
POLL_SECONDS = 0.1
SAME_SIGNAL_SECONDS = 1  # `timeout` and some shells send one signal twice
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Server(uvicorn.Server):
    """Leaves signals to `run_service`, which stops the worker as well."""

    stops_at = float("inf")  # on the monotonic clock

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        return await super().on_tick(counter) or time.monotonic() >= self.stops_at


def config(app: FastAPI) -> uvicorn.Config:
    """How the application is served."""
    return uvicorn.Config(
        app,
        lifespan="on",
        # h11 limits the size of a head, and never takes a body for another request.
        http=protocol(app.state.settings),
        log_config=None,
        access_log=False,  # the application writes its own
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=API_GRACE_SECONDS,
    )


def run_service(
    settings: Settings,
    listener: socket.socket,
    announce: Callable[[], None],
    *,
    with_worker: bool,
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP; a second ends all at once. Raises `Unreachable`,
    and what is wrong with the settings, the database or its schema.

    At the first one the API says that it is not ready any more. An API on its own goes on to listen
    for a moment, so that a balancer before it finds that out; at Ctrl-C and beside its own worker
    it does not. Then it answers what is under way.
    """
    _look(settings)
    hand_on(settings)
    app = import_from_string("app.main:create_app")()
    server = _Server(config(app))
    worker = WorkerProcess(grace_seconds=settings.stop_grace_seconds) if with_worker else None
    stopping = threading.Event()
    asked_at = float("inf")

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal asked_at
        now = time.monotonic()
        if not stopping.is_set():
            asked_at = now
            stopping.set()
            app.state.leaving.set()
            server.stops_at = now if worker or number == signal.SIGINT else now + NOTICE_SECONDS
            if worker:
                worker.stop()
        elif now - asked_at > SAME_SIGNAL_SECONDS:
            server.stops_at, server.force_exit = now, True
            if worker:
                worker.kill()

    url = address(settings.host, settings.port)
    with _handling(stop):
        threading.Thread(target=_herald, args=(url, announce, stopping), daemon=True).start()
        if worker:
            worker.start()
        try:
            server.run(sockets=[listener])
        except SystemExit:  # uvicorn's word for a start that failed; the log has the cause
            raise Unreachable("the API did not start", "not_started") from None
        finally:
            unasked = not stopping.is_set()
            stopping.set()
            if worker:
                worker.stop()
                worker.join()
    if unasked:
        raise Unreachable("the API ended by itself", "ended")


def _look(settings: Settings) -> None:
    """Refuse what the API could not start with: uvicorn would bury the cause in a traceback.
    Remind of the first key.
    """
    resources = open_resources(settings)
    try:
        migrations.check(resources.database)
        if settings.auth == "on":
            load_pepper(settings)
            with resources.database.read() as session:
                if not usable(session):
                    warn("No key is good yet; make one with `loraworks keys create NAME`.")
    finally:
        resources.close()


def _herald(url: str, announce: Callable[[], None], stopping: threading.Event) -> None:
    """Announce the service once it says itself that it is ready."""
    polls = 0
    with Client(url) as client:
        while not stopping.is_set():
            if client.ready():
                announce()
                return
            polls += 1
            if polls * POLL_SECONDS == SLOW_SECONDS:
                warn(f"The API is not ready yet; ask {url}/readyz for the reason.")
            stopping.wait(POLL_SECONDS)


@contextmanager
def _handling(stop: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Signals that are ignored, as SIGHUP under nohup, stay so."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# MERGED app.cli.up
# `loraworks up`: the whole service in one command.

NoWorker = Annotated[bool, typer.Option("--no-worker", help="Start the API alone.")]


def up(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    no_worker: NoWorker = False,
    as_json: AsJson = False,
) -> None:
    """Start the service: the API and one worker. Ctrl-C stops both.

    With --json one line with url, docs, data_dir and admin_key_file is printed once it is ready.
    """
    from app.database.migrations import upgrade

    chosen = {"host": host, "port": port, "data_dir": data_dir}
    settings = load_settings(chosen)
    with listen(settings.host, settings.port) as listener:
        settings = load_settings({**chosen, "port": listener.getsockname()[1]})
        # APIs beside each other need a database that is made for it.
        embedded = settings.database_url is None
        with nullcontext() if no_worker and not embedded else alone(settings):
            upgrade(settings)
            announce = announcement(settings, admin_key=new_admin_key(settings), as_json=as_json)
            # A broker wakes workers that listen to it. This one only polls, so it must do so often.
            os.environ.setdefault("LORAWORKS_POLL_SECONDS", "1")
            run_service(settings, listener, announce, with_worker=not no_worker)


# MERGED app.cli.up
# `loraworks api`: the API alone, where migrating and training are the business of others.

PROBE_SECONDS = 5.0

CheckOnly = Annotated[
    bool, typer.Option("--check", help="Start nothing; exit 4 unless the one here is ready.")
]


def api(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    check_only: CheckOnly = False,
    as_json: AsJson = False,
) -> None:
    """Start the API without a worker. The schema must be up to date: see `loraworks migrate`.

    With --json one line with url, docs, data_dir and admin_key_file is printed once it is ready.
    """

    chosen = {"host": host, "port": port, "data_dir": data_dir}
    settings = load_settings(chosen)
    if check_only:
        _probe(address(settings.host, settings.port))
        return
    with listen(settings.host, settings.port) as listener:
        settings = load_settings({**chosen, "port": listener.getsockname()[1]})
        run_service(settings, listener, announcement(settings, as_json=as_json), with_worker=False)


def _probe(url: str) -> None:
    """Raises `Unreachable` with what is wrong."""
    with Client(url) as client:
        client.request("GET", "/readyz", timeout=PROBE_SECONDS)
    say("The API is ready.")
