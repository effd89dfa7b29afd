"""Connections that are slow, idle, or too many, on real sockets."""

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

from app.cli.up import config
from app.http import connections
from app.main import create_app
from app.settings import Settings
from tests.waiting import wait_until

HEAD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"


@contextmanager
def served(settings: Settings) -> Iterator[int]:
    """The port of a server in this process, as `loraworks up` runs it."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config(create_app(settings)))
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
    """Of the next answer, which is read to its end: head and body may come one after the other."""
    answer = HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status


def rest(connection: socket.socket) -> bytes:
    """All until the other side closes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.fixture
def hurried(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    with served(settings) as port:
        yield port


def test_a_connection_that_asks_nothing_is_closed(hurried: int) -> None:
    with connect(hurried) as idle:
        assert rest(idle) == b""


def drip(connection: socket.socket) -> bytes:
    """Send a byte now and then; what is answered."""
    connection.settimeout(0.05)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            answer = connection.recv(65536)
        except TimeoutError:
            connection.sendall(b"x")
        else:
            return answer
    raise AssertionError("nobody ended it")


def test_a_head_that_comes_too_slowly_is_refused(hurried: int) -> None:
    with connect(hurried) as slow:
        slow.sendall(HEAD)
        assert drip(slow).startswith(b"HTTP/1.1 408 ")


def test_so_is_the_next_head_on_the_same_connection(hurried: int) -> None:
    with connect(hurried) as slow:
        slow.sendall(HEAD + b"\r\n")
        assert status(slow) == 200
        slow.sendall(HEAD)
        assert drip(slow).startswith(b"HTTP/1.1 408 ")


def test_an_answer_may_take_longer_than_a_head(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    app = create_app(settings)

    @app.get("/v1/slow")
    def slow() -> str:
        time.sleep(0.8)
        return "done"

    monkeypatch.setattr(sys.modules[__name__], "create_app", lambda _: app)
    with served(settings) as port:
        assert httpx2.get(f"http://127.0.0.1:{port}/v1/slow", timeout=20).json() == "done"


def test_a_new_connection_takes_the_place_of_the_longest_idle(
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
    assert "connections_full" in capfd.readouterr().err


def test_where_all_are_busy_a_new_connection_is_told_so(settings: Settings) -> None:
    limited = settings.model_copy(update={"max_connections": 2})
    with served(limited) as port, connect(port) as one, connect(port) as two:
        for each in (one, two):
            each.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")

        def answer() -> bytes:
            try:
                with connect(port) as new:
                    new.sendall(HEAD + b"Connection: close\r\n\r\n")
                    return rest(new)
            except ConnectionError:  # closed before the head could be read
                return b"HTTP/1.1 503 "

        wait_until(lambda: answer().startswith(b"HTTP/1.1 503 "), what="a refusal")
        one.close()
        wait_until(lambda: answer().startswith(b"HTTP/1.1 200 "), what="room again")


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
def test_a_refusal_closes_the_connection_and_reads_no_further(
    locked: Settings, request_: bytes, status: bytes
) -> None:
    with served(locked) as port, connect(port) as connection:
        connection.sendall(request_)
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b"connection: close" in answer.lower()
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_small_body_that_follows_a_refusal_keeps_the_connection(locked: Settings) -> None:
    with served(locked) as port, httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
        answer = client.post("/v1/jobs", json={})
        assert answer.status_code == 401
        assert "connection" not in answer.headers


def test_the_rest_of_a_body_that_was_answered_is_not_waited_for(
    locked: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    head = b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n"
    with served(locked) as port, connect(port) as slow:
        slow.sendall(head)
        assert status(slow) == 401
        assert drip(slow) == b""


def test_a_client_that_sends_too_much_learns_why(settings: Settings) -> None:
    small = settings.model_copy(update={"max_upload_bytes": 100_000})
    with served(small) as port:
        file = {"file": ("a.csv", b"x" * 20_000_000)}
        answer = httpx2.post(f"http://127.0.0.1:{port}/v1/datasets", files=file)
        assert answer.status_code == 413


def test_idle_connections_of_strangers_are_no_outage(settings: Settings, tmp_path: Path) -> None:
    """As many files as are allowed used to be as many connections as it took, without a line."""
    files = 256

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files // 2, files))

    command = "from app.cli.main import main; main()"
    with ExitStack() as opened:
        told = opened.enter_context((tmp_path / "log").open("w+"))
        free = socket.create_server(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        process = subprocess.Popen(
            [sys.executable, "-c", command, "up", "--no-worker", "--port", str(port)],
            env={**os.environ, "LORAWORKS_DATA_DIR": str(settings.data_dir)},
            preexec_fn=limit,
            stdout=subprocess.DEVNULL,
            stderr=told,
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
    assert by_event["connections_full"]["limit"] == files * 3 // 4
