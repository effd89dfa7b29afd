"""Slow, idle and excess connections, on real sockets."""

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPResponse
from pathlib import Path

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from app.cli.serve import uvicorn_config
from app.http import connections
from app.http.connections import build_protocol_class
from app.main import create_app
from app.settings import Settings
from tests.waiting import wait_until

HEAD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"


@contextmanager
def served(settings: Settings, *, send_buffer: int | None = None) -> Iterator[int]:
    """The port of a server in this process, run like `loraworks up` does."""
    with running(uvicorn_config(create_app(settings)), send_buffer) as port:
        yield port


@contextmanager
def running(config: uvicorn.Config, send_buffer: int | None = None) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    if send_buffer is not None:  # of each connection
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), what="a start")
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def status(connection: socket.socket) -> int:
    """Return the status of the next response, after reading its head and body."""
    response = HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def rest(connection: socket.socket) -> bytes:
    """Read until the other side closes the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture
def short_head_timeout(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_SECONDS", 0.3)
    with served(settings) as port:
        yield port


def test_connection_without_a_request_is_closed(short_head_timeout: int) -> None:
    with connect(short_head_timeout) as idle:
        assert rest(idle) == b""


def send_slowly(connection: socket.socket) -> bytes:
    """Send single bytes with pauses, and return the response."""
    connection.settimeout(0.05)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            response = connection.recv(65536)
        except TimeoutError:
            connection.sendall(b"x")
        else:
            return response
    raise AssertionError("nobody ended it")


def test_slow_request_head_is_rejected(short_head_timeout: int) -> None:
    with connect(short_head_timeout) as slow:
        slow.sendall(HEAD)
        assert send_slowly(slow).startswith(b"HTTP/1.1 408 ")


def test_slow_second_request_head_is_rejected(short_head_timeout: int) -> None:
    with connect(short_head_timeout) as slow:
        slow.sendall(HEAD + b"\r\n")
        assert status(slow) == 200
        slow.sendall(HEAD)
        assert send_slowly(slow).startswith(b"HTTP/1.1 408 ")


def test_response_may_take_longer_than_the_head_timeout(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_SECONDS", 0.2)
    app = create_app(settings)

    @app.get("/v1/slow")
    def slow() -> str:
        time.sleep(0.8)
        return "done"

    monkeypatch.setattr(sys.modules[__name__], "create_app", lambda _: app)
    with served(settings) as port:
        assert httpx2.get(f"http://127.0.0.1:{port}/v1/slow", timeout=20).json() == "done"


SMALL_BUFFER = 4096  # what the kernel takes of a response that nobody reads


@pytest.fixture
def large_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = create_app

    def create_app_with_route(settings: Settings) -> FastAPI:
        app = usual(settings)

        @app.get("/v1/large")
        def large(size: int) -> Response:
            return Response(bytes(size))

        return app

    monkeypatch.setattr(sys.modules[__name__], "create_app", create_app_with_route)


@pytest.fixture
def lost(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once the server has closed a connection and forgotten what was left to write."""
    event, connection_lost = threading.Event(), H11Protocol.connection_lost

    def record(self: H11Protocol, exc: Exception | None) -> None:
        connection_lost(self, exc)
        event.set()

    monkeypatch.setattr(H11Protocol, "connection_lost", record)
    return event


def connect_without_reading(
    port: int, size: int, headers: bytes = b"", *, buffer: int = SMALL_BUFFER
) -> socket.socket:
    """Request a response of `size` bytes, and wait for its status only."""
    connection = socket.socket()
    connection.settimeout(20)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.connect(("127.0.0.1", port))
    request = b"GET /v1/large?size=%d HTTP/1.1\r\nHost: localhost\r\n%s\r\n"
    connection.sendall(request % (size, headers))
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


@pytest.mark.usefixtures("large_responses")
@pytest.mark.parametrize("size", [60_000, 10_000_000], ids=["buffered", "paused"])
@pytest.mark.parametrize("headers", [b"", b"Connection: close\r\n"], ids=["keep_alive", "close"])
def test_client_that_does_not_read_its_response_is_cut_off(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    lost: threading.Event,
    size: int,
    headers: bytes,
) -> None:
    monkeypatch.setattr(connections, "READ_TIMEOUT_SECONDS", 0.2)
    with (
        served(settings, send_buffer=SMALL_BUFFER) as port,
        connect_without_reading(port, size, headers),
    ):
        assert lost.wait(20)


@pytest.mark.usefixtures("large_responses")
def test_client_that_reads_slowly_gets_the_whole_response(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "READ_TIMEOUT_SECONDS", 1.0)
    size = 10_000_000
    with (
        served(settings) as port,
        connect_without_reading(port, size, b"Connection: close\r\n", buffer=65_536) as slow,
    ):
        received = 0
        while received < 2_000_000:  # in a second less than the kernel would take at once
            received += len(slow.recv(50_000))
            time.sleep(0.1)
        while chunk := slow.recv(1_000_000):
            received += len(chunk)
    assert received > size


@pytest.mark.usefixtures("large_responses")
def test_new_connection_replaces_one_that_does_not_read(
    settings: Settings, lost: threading.Event
) -> None:
    limited = settings.model_copy(update={"max_connections": 1})
    with (
        served(limited, send_buffer=SMALL_BUFFER) as port,
        connect_without_reading(port, 10_000_000),
        connect(port) as new,
    ):
        assert lost.wait(20)
        new.sendall(HEAD + b"\r\n")
        assert status(new) == 200


@pytest.mark.usefixtures("large_responses")
def test_new_connection_replaces_none_whose_client_still_reads(settings: Settings) -> None:
    limited = settings.model_copy(update={"max_connections": 2})
    size = 10_000_000
    with (
        served(limited, send_buffer=SMALL_BUFFER) as port,
        connect_without_reading(port, size, buffer=65_536) as reading,
        connect(port) as done,
    ):
        done.sendall(HEAD + b"\r\n")
        assert status(done) == 200
        with connect(port) as new:
            assert rest(done) == b""
            received = 0
            while received < size:
                chunk = reading.recv(1_000_000)
                assert chunk
                received += len(chunk)
            new.sendall(HEAD + b"\r\n")
            assert status(new) == 200


def test_new_connection_replaces_the_longest_idle_one(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    limited = settings.model_copy(update={"max_connections": 3})
    with served(limited) as port, ExitStack() as opened:
        first, second, kept = (opened.enter_context(connect(port)) for _ in range(3))
        kept.sendall(HEAD + b"\r\n")
        assert status(kept) == 200
        new = opened.enter_context(connect(port))
        assert rest(first) == b""
        for each in (new, second, kept):
            each.sendall(HEAD + b"\r\n")
            assert status(each) == 200
    assert "connection_limit_reached" in capfd.readouterr().err


def test_new_connection_is_rejected_if_all_are_busy(settings: Settings) -> None:
    limited = settings.model_copy(update={"max_connections": 2})
    with served(limited) as port, connect(port) as one, connect(port) as two:
        for each in (one, two):
            each.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")

        def new_response() -> bytes:
            try:
                with connect(port) as new:
                    new.sendall(HEAD + b"Connection: close\r\n\r\n")
                    return rest(new)
            except ConnectionError:  # closed before the head could be read
                return b"HTTP/1.1 503 "

        wait_until(lambda: new_response().startswith(b"HTTP/1.1 503 "), what="a rejection")
        one.close()
        wait_until(lambda: new_response().startswith(b"HTTP/1.1 200 "), what="a free connection")


REFUSED = [
    (b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n{", b"401"),
    (b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"401"),
    (b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90000000\r\n\r\n{", b"413"),
    (
        b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HEAD + b"\r\n",
        b"400",
    ),
]


@pytest.mark.parametrize(("request_", "status"), REFUSED, ids=["401", "chunks", "413", "both"])
def test_early_error_response_closes_the_connection(
    auth_settings: Settings, request_: bytes, status: bytes
) -> None:
    with served(auth_settings) as port, connect(port) as connection:
        connection.sendall(request_)
        response = rest(connection)
    assert response.startswith(b"HTTP/1.1 " + status)
    assert b"connection: close" in response.lower()
    assert response.count(b"HTTP/1.1 ") == 1


def test_early_error_response_with_small_body_keeps_the_connection(auth_settings: Settings) -> None:
    with (
        served(auth_settings) as port,
        httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        response = client.post("/v1/jobs", json={})
        assert response.status_code == 401
        assert "connection" not in response.headers


def test_rest_of_a_body_is_not_awaited_after_the_response(
    auth_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_SECONDS", 0.3)
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"
    with served(auth_settings) as port, connect(port) as slow:
        slow.sendall(head)
        assert status(slow) == 401
        assert send_slowly(slow) == b""


def test_client_with_too_large_body_gets_the_error_response(settings: Settings) -> None:
    small = settings.model_copy(update={"max_upload_bytes": 100_000})
    with served(small) as port:
        file = {"file": ("a.csv", b"x" * 20_000_000)}
        response = httpx2.post(f"http://127.0.0.1:{port}/v1/datasets", files=file)
        assert response.status_code == 413


@pytest.mark.slow  # with a lower limit: the tests of new connections
def test_idle_connections_cause_no_outage(settings: Settings, tmp_path: Path) -> None:
    """Connections used to exhaust the open-file limit, without a log line."""
    files = 256

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files // 2, files))

    command = "from app.cli.main import main; main()"
    with ExitStack() as opened:
        log_file = opened.enter_context((tmp_path / "log").open("w+"))
        free = socket.create_server(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        process = subprocess.Popen(
            [sys.executable, "-c", command, "up", "--no-worker", "--port", str(port)],
            env={**os.environ, "LORAWORKS_DATA_DIR": str(settings.data_dir)},
            preexec_fn=limit,
            stdout=subprocess.DEVNULL,
            stderr=log_file,
        )
        opened.callback(process.wait)
        opened.callback(process.send_signal, signal.SIGINT)
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool:
            assert process.poll() is None
            try:
                return httpx2.get(f"{url}/readyz").status_code == 200
            except httpx2.TransportError:
                return False

        wait_until(ready, seconds=60, what="a start")
        for _ in range(2 * files):
            opened.enter_context(connect(port))
        assert httpx2.get(f"{url}/livez").status_code == 200
        assert httpx2.get(f"{url}/v1/jobs").status_code == 200
        lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    by_event = {line["event"]: line for line in lines}
    assert by_event["open_files"]["limit"] == files
    assert by_event["connection_limit_reached"]["limit"] == files * 3 // 4


def test_requests_that_arrive_together_start_in_iterations_of_their_own(settings: Settings) -> None:
    iterations, started_in, busy = 0, [], threading.Event()

    async def count_iterations() -> None:
        nonlocal iterations
        while True:
            iterations += 1
            await asyncio.sleep(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/busy":
            counting = asyncio.create_task(count_iterations())
            busy.set()
            time.sleep(0.3)  # meanwhile, the others arrive
            await asyncio.sleep(0.3)  # they start
            counting.cancel()
        else:
            started_in.append(iterations)
        await Response()(scope, receive, send)

    protocol = build_protocol_class(settings)
    config = uvicorn.Config(app, lifespan="off", http=protocol, log_config=None)
    with running(config) as port, ExitStack() as opened:
        first, *others = [opened.enter_context(connect(port)) for _ in range(5)]
        for each in others:  # each is accepted in an iteration of its own
            each.sendall(HEAD + b"\r\n")
            assert status(each) == 200
        first.sendall(HEAD.replace(b"/livez", b"/busy") + b"\r\n")
        assert busy.wait(20)
        for each in others:
            each.sendall(HEAD + b"\r\n")
        assert [status(each) for each in (first, *others)] == [200] * 5
    assert len(set(started_in[4:])) == 4
