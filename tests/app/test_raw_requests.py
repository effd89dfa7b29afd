"""Raw requests, which no client library would send, to a real server."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from app.cli.serve import uvicorn_config
from app.main import create_app
from app.settings import Settings


@pytest.fixture
def port(auth_settings: Settings) -> Iterator[int]:
    served = uvicorn_config(create_app(auth_settings))
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
    """Return the status and the whole response."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        response = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(response.split(b" ")[1]), response


def test_malformed_requests_are_rejected(port: int) -> None:
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
        status, response = send(port, request)
        assert status in {400, 401}, request
        assert b"Traceback" not in response


def test_endless_head_is_rejected(port: int) -> None:
    status, response = send(port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 66_000)
    assert status == 400
    assert response.count(b"HTTP/1.1") == 1


def test_body_after_an_upgrade_is_not_a_second_request(port: int) -> None:
    hidden = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    head = (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nUpgrade: h2c\r\nConnection: Upgrade, close"
        b"\r\nContent-Length: %d\r\n\r\n" % len(hidden)
    )
    status, response = send(port, head + hidden)
    assert status == 401
    assert response.count(b"HTTP/1.1") == 1


def test_valid_request_is_accepted(port: int) -> None:
    status, response = send(
        port, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    assert status == 200
    assert response.endswith(b'{"status":"ok"}')
    assert b"x-request-id" in response.lower()
