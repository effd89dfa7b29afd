"""What callers do to a connection is no fault of ours: one line each, and no stack trace."""

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


def rude(url: str, *pieces: bytes, wait: bool = False) -> None:
    """Send, wait for the first byte of an answer if asked to, then break the connection."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if wait:
            connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def test_broken_calls_leave_no_stack_trace(
    url: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
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
    for call, wait in calls:
        rude(url, call, wait=wait)
    job_id = httpx2.post(f"{url}/v1/jobs", json={"method": {"type": "lora"}}).json()["id"]
    stream = f"GET /v1/jobs/{job_id}/stream HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    rude(url, stream, wait=True)

    def all_told() -> bool:
        lines = (record.msg for record in caplog.records if isinstance(record.msg, dict))
        broken = {"/v1/datasets", "/predict", f"/v1/jobs/{job_id}/stream"}
        return broken <= {line.get("path") for line in lines}

    wait_until(all_told, what="a line for each request")
    assert httpx2.get(f"{url}/livez").status_code == 200
    # Read once: what is written while pytest empties its file is lost.
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
def test_a_body_that_comes_too_slowly_is_given_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, path: str, kind: str, start: bytes
) -> None:
    monkeypatch.setattr(middleware, "PATIENCE_SECONDS", 0.5)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
    with serving(create_app(settings)) as url:
        address = urlsplit(url)
        with socket.create_connection((address.hostname or "", address.port or 0)) as connection:
            connection.sendall(f"{head}Content-Length: 900000\r\n\r\n".encode() + start)

            def answered() -> bool:
                if select.select([connection], [], [], 0)[0]:
                    return True  # what is sent after the end would take the answer away
                connection.sendall(b" ")  # a byte each 20 ms
                return False

            wait_until(answered, what="an end of the patience")
            answer = b""
            while b"}" not in answer:
                answer += connection.recv(65536)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"connection: close" in answer.lower()
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "body_too_slow"
        assert [path.name for path in settings.datasets_dir.rglob("*")] in ([], [files.INCOMING])
        headers = {"Content-Type": "application/json"}
        unhurried = httpx2.post(f"{url}/v1/jobs", content=in_pieces(), headers=headers)
        assert unhurried.status_code == 202


def logged(caplog: pytest.LogCaptureFixture, *, requests: int) -> list[dict[str, Any]]:
    """All lines, once so many requests are in them: the line follows the answer."""

    def lines() -> list[dict[str, Any]]:
        return [record.msg for record in caplog.records if isinstance(record.msg, dict)]

    wait_until(lambda: sum(line["event"] == "request" for line in lines()) == requests)
    return lines()


def test_every_line_about_a_job_names_it(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with httpx2.Client(base_url=url) as client:  # one connection
        made = client.post(
            "/v1/jobs", json={"method": {"type": "lora"}}, headers={"X-Request-Id": "r-1"}
        )
        job_id = made.json()["id"]
        client.get(f"/v1/jobs/{job_id}", headers={"X-Request-Id": "r-2"})
        client.get("/v1/jobs", headers={"X-Request-Id": "r-3"})
        client.get("/v1/jobs/nonsense", headers={"X-Request-Id": "r-4"})
    lines = logged(caplog, requests=4)

    def told(request_id: str) -> set[tuple[str, str | None]]:
        mine = [line for line in lines if line.get("request_id") == request_id]
        return {(line["event"], line.get("job_id")) for line in mine}

    assert told("r-1") == {("job submitted", job_id), ("request", None)}
    assert told("r-2") == {("request", job_id)}
    assert told("r-3") == told("r-4") == {("request", None)}


def test_a_job_is_not_named_by_the_next_request_on_the_connection(
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
    told = {line.get("path"): line.get("job_id") for line in lines}
    assert told[f"/v1/jobs/{job_id}"] == job_id
    assert told["/livez"] is None
