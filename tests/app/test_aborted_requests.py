"""Aborted requests: one log line each, and no traceback."""

import json
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from app.datasets import files
from app.http import middleware
from app.main import create_app
from app.settings import Settings
from tests.app.cli.conftest import serving
from tests.waiting import wait_until

RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    with serving(create_app(settings)) as address:
        yield address


def send_and_abort(url: str, *pieces: bytes, wait: bool = False) -> None:
    """Send a request, optionally wait for the first byte of the response, then disconnect."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if wait:
            connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def test_aborted_requests_log_no_traceback(
    settings: Settings, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    head = b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    form = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 999\r\n\r\n--x\r\n"
    calls = (
        (b"\x16\x03\x01\x02\x00\x01", False),  # TLS to a plain port
        (b"nonsense\r\n\r\n", True),
        (b"GET / HTTP/9.9\r\n\r\n", True),
        (b"GET /v1/jobs HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", True),
        (b"POST /v1/jobs" + head + b"Content-Length: 50\r\n\r\n{", False),
        (b"POST /v1/jobs" + head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", True),
        (b"POST /v1/datasets HTTP/1.1\r\nHost: localhost\r\n" + form, False),
        (b"POST /predict" + head + b"Content-Length: 9\r\n\r\n{", False),
        (b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n", False),
    )
    with serving(create_app(settings)) as url:
        for call, wait in calls:
            send_and_abort(url, call, wait=wait)
        job_id = httpx2.post(f"{url}/v1/jobs", json={"method": {"type": "lora"}}).json()["id"]
        stream = f"GET /v1/jobs/{job_id}/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        send_and_abort(url, stream, wait=True)

        def all_complete() -> bool:
            lines = (record.msg for record in caplog.records if isinstance(record.msg, dict))
            broken = {"/v1/datasets", "/predict", "/openapi.json", f"/v1/jobs/{job_id}/stream"}
            return broken <= {line.get("path") for line in lines}

        wait_until(all_complete, what="a line for each request")
        assert httpx2.get(f"{url}/livez").status_code == 200
    # After the server, since lines that it writes while pytest reads its file are mangled.
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line for line in lines if "exception" in line] == []
    assert {line["level"] for line in lines} <= {"info", "warning"}
    (followed,) = [line for line in lines if line.get("path") == f"/v1/jobs/{job_id}/stream"]
    assert followed["job_id"] == job_id


FORM = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\ntext,'


def in_pieces() -> Iterator[bytes]:
    for piece in (b'{"method": ', b'{"type": ', b'"lora"}}'):
        time.sleep(0.1)
        yield piece


@pytest.mark.parametrize(
    ("path", "kind", "start"),
    [
        ("/v1/datasets", "multipart/form-data; boundary=x", FORM),
        ("/v1/jobs", "application/json", b"{"),
    ],
)
def test_slow_body_is_rejected(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, path: str, kind: str, start: bytes
) -> None:
    monkeypatch.setattr(middleware, "BODY_GRACE_SECONDS", 0.5)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    with serving(create_app(settings)) as url:
        address = urlsplit(url)
        with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
            connection.sendall(f"{head}Content-Length: 900000\r\n\r\n".encode() + start)

            def answered() -> bool:
                if select.select([connection], [], [], 0)[0]:
                    return True  # sending more after the response would discard it
                connection.sendall(b" ")  # a byte each 20 ms
                return False

            wait_until(answered, what="the body timeout")
            response = b""
            while b"}" not in response:
                response += connection.recv(65536)
        assert response.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in response.lower()
        assert json.loads(response.partition(b"\r\n\r\n")[2])["code"] == "body_too_slow"
        assert [path.name for path in settings.uploads_dir.rglob("*")] in (
            [],
            [files.INCOMING_DIR],
        )
        monkeypatch.setattr(middleware, "BODY_GRACE_SECONDS", 30)
        headers = {"Content-Type": "application/json"}
        unhurried = httpx2.post(f"{url}/v1/jobs", content=in_pieces(), headers=headers)
        assert unhurried.status_code == 202


def logged(caplog: pytest.LogCaptureFixture, *, requests: int) -> list[dict[str, Any]]:
    """Return all lines once they contain this many requests: a line follows its response."""

    def lines() -> list[dict[str, Any]]:
        return [record.msg for record in caplog.records if isinstance(record.msg, dict)]

    wait_until(lambda: sum(line["event"] == "request" for line in lines()) == requests)
    return lines()


def test_log_lines_about_a_job_have_its_id(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with httpx2.Client(base_url=url) as client:  # one connection
        made = client.post(
            "/v1/jobs", json={"method": {"type": "lora"}}, headers={"X-Request-Id": "r-1"}
        )
        job_id = made.json()["id"]
        client.get(f"/v1/jobs/{job_id}", headers={"X-Request-Id": "r-2"})
        client.get("/v1/jobs", headers={"X-Request-Id": "r-3"})
        client.get("/v1/jobs/nonsense", headers={"X-Request-Id": "r-4"})
    lines = logged(caplog, requests=4)

    def events_of(request_id: str) -> set[tuple[str, str | None]]:
        mine = [line for line in lines if line.get("request_id") == request_id]
        return {(line["event"], line.get("job_id")) for line in mine}

    assert events_of("r-1") == {("created job", job_id), ("request", None)}
    assert events_of("r-2") == {("request", job_id)}
    assert events_of("r-3") == events_of("r-4") == {("request", None)}


def test_job_id_is_not_logged_for_the_next_request_on_a_connection(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = httpx2.post(f"{url}/v1/jobs", json={"method": {"type": "lora"}}).json()["id"]
    both = (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n"
        for path, connection in ((f"/v1/jobs/{job_id}", "keep-alive"), ("/livez", "close"))
    )
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        connection.sendall("".join(both).encode())
        while connection.recv(65536):
            pass
    lines = logged(caplog, requests=3)
    job_ids = {line.get("path"): line.get("job_id") for line in lines}
    assert job_ids[f"/v1/jobs/{job_id}"] == job_id
    assert job_ids["/livez"] is None
