"""Runs the API in this process, and a worker below it, until a signal.

The modules imported here are slow to load, so `up` imports this one only when it serves.
"""

import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI
from uvicorn.importer import import_from_string

from app.auth.repository import list_usable_keys
from app.auth.secrets import load_or_create_pepper
from app.cli.client import Client
from app.cli.errors import ServiceUnreachableOrFailed
from app.cli.output import print_warning
from app.cli.preflight import export_address_and_data_dir
from app.cli.worker import RestartingWorkerProcess
from app.database import migrations
from app.http.connections import build_protocol_class
from app.http.dependencies import get_app_state
from app.resources import open_resources
from app.sandbox.missing_confinement import log_missing_confinement
from app.settings import Settings

NOT_READY_SECONDS = 3.0  # listen this long after "not ready", so that load balancers notice
API_GRACE_SECONDS = 30  # for requests in progress
SLOW_START_SECONDS = 30  # until a warning about a slow start
POLL_SECONDS = 0.1
DUPLICATE_SIGNAL_SECONDS = 1  # `timeout` and some shells send a signal twice
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Server(uvicorn.Server):
    """Leaves signals to `run_service`, which also stops the worker."""

    stops_at = float("inf")  # on the monotonic clock

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        """Stop at `stops_at`. Called ten times a second."""
        return await super().on_tick(counter) or time.monotonic() >= self.stops_at


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """Return the uvicorn configuration of the API."""
    return uvicorn.Config(
        app,
        lifespan="on",
        # h11 limits the size of request heads and is safe from request smuggling.
        http=build_protocol_class(get_app_state(app).settings),
        log_config=None,
        access_log=False,  # the application logs requests itself
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
    """Serve until SIGINT, SIGTERM or SIGHUP. A second signal stops at once.

    At the first signal, `/readyz` reports "not ready". An API without a worker keeps listening for
    a moment, so that a load balancer notices; not after Ctrl-C. Then requests in progress are
    completed. Raises `ServiceUnreachableOrFailed`, and errors about settings, database or schema.
    """
    _check_startup(settings, with_worker=with_worker)
    export_address_and_data_dir(settings)
    app = import_from_string("app.main:create_app")()
    server = _Server(uvicorn_config(app))
    worker = (
        RestartingWorkerProcess(grace_seconds=settings.stop_grace_seconds) if with_worker else None
    )
    stopping = threading.Event()
    stop_requested_at = float("inf")

    def stop(signum: int, _frame: FrameType | None) -> None:
        nonlocal stop_requested_at
        now = time.monotonic()
        if not stopping.is_set():
            stop_requested_at = now
            stopping.set()
            get_app_state(app).shutting_down.set()
            server.stops_at = now if worker or signum == signal.SIGINT else now + NOT_READY_SECONDS
            if worker:
                worker.stop()
        elif now - stop_requested_at > DUPLICATE_SIGNAL_SECONDS:
            server.stops_at, server.force_exit = now, True
            if worker:
                worker.kill()

    url = settings.local_service_url
    with _signal_handlers(stop):
        threading.Thread(
            target=_announce_when_ready, args=(url, announce, stopping), daemon=True
        ).start()
        if worker:
            worker.start()
        try:
            server.run(sockets=[listener])
        except SystemExit:  # how uvicorn reports a failed start; the log has the cause
            raise ServiceUnreachableOrFailed("the API did not start", "not_started") from None
        finally:
            ended_unexpectedly = not stopping.is_set()
            stopping.set()
            if worker:
                worker.stop()
                worker.join_or_kill()
    if ended_unexpectedly:
        raise ServiceUnreachableOrFailed("the API stopped unexpectedly", "ended")


def _check_startup(settings: Settings, *, with_worker: bool) -> None:
    """Raise what would keep the API from starting; uvicorn would bury it in a traceback.

    Warn if no API key is valid, and of missing confinement unless the worker does.
    """
    resources = open_resources(settings)
    try:
        migrations.check_schema_revision(resources.database)
        if settings.auth == "on":
            load_or_create_pepper(settings)
            with resources.database.read() as session:
                if not list_usable_keys(session):
                    print_warning(
                        "No API key is valid yet. Create one with `loraworks keys create NAME`."
                    )
    finally:
        resources.close()
    if not with_worker:
        log_missing_confinement()


def _announce_when_ready(url: str, announce: Callable[[], None], stopping: threading.Event) -> None:
    """Announce the service once it reports that it is ready."""
    warn_at = time.monotonic() + SLOW_START_SECONDS
    with Client(url) as client:
        while not stopping.is_set():
            if client.is_ready():
                announce()
                return
            if time.monotonic() >= warn_at:
                warn_at = float("inf")
                print_warning(f"The API is not ready yet. See {url}/readyz for the reason.")
            stopping.wait(POLL_SECONDS)


@contextmanager
def _signal_handlers(stop: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Install the handler, except for ignored signals, such as SIGHUP under nohup."""
    previous_handlers = {signum: signal.getsignal(signum) for signum in SIGNALS}
    for signum, handler in previous_handlers.items():
        if handler is not signal.SIG_IGN:
            signal.signal(signum, stop)
    try:
        yield
    finally:
        for signum, handler in previous_handlers.items():
            signal.signal(signum, handler)
