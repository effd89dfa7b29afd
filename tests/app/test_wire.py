"""Requests as raw bytes, against a real server: what no client library would send."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from app.cli.up import config
from app.main import create_app
from app.settings import Settings


@pytest.fixture
def port(locked: Settings) -> Iterator[int]:
    served = config(create_app(locked))
    served.port = 0
    server = uvicorn.Server(served)
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


def send(port: int, request: bytes) -> tuple[int, bytes]:
    """Status and everything that came back."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split(b" ")[1]), answer


def test_what_no_client_library_would_send_is_refused(port: int) -> None:
    end = b"\r\nConnection: close\r\n\r\n"
    refused = [
        b"GET /livez HTTP/1.0\r\n\r\n",
        b"GET http://evil.example/livez HTTP/1.1\r\nHost: evil.example" + end,
        b"GET http://localhost/v1/jobs HTTP/1.1\r\nHost: localhost" + end,
        b"GET http://x/livez?/v1/jobs HTTP/1.1\r\nHost: localhost" + end,
        b"GET /v1/jobs HTTP/1.1\r\nHost: localhost/livez?" + end,
        b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nHost: localhost" + end,
        b"OPTIONS * HTTP/1.1\r\nHost: localhost" + end,
        b"GET //v1/jobs HTTP/1.1\r\nHost: localhost" + end,
        b"GET /livez/../v1/jobs HTTP/1.1\r\nHost: localhost" + end,
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost" + end,
        b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n /livez: 1" + end,
    ]
    for request in refused:
        status, answer = send(port, request)
        assert status in {400, 401}, request
        assert b"Traceback" not in answer


def test_a_head_without_end_is_refused(port: int) -> None:
    status, answer = send(port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 66_000)
    assert status == 400
    assert answer.count(b"HTTP/1.1") == 1


def test_a_body_after_an_upgrade_is_no_second_request(port: int) -> None:
    hidden = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade, close"
        b"\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    )
    status, answer = send(port, head + hidden)
    assert status == 401
    assert answer.count(b"HTTP/1.1") == 1


def test_a_good_request_is_answered(port: int) -> None:
    status, answer = send(
        port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    assert status == 200
    assert answer.endswith(b'{"status":"ok"}')
    assert b"x-request-id" in answer.lower()
