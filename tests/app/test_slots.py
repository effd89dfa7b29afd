"""Work whose caller has left is cancelled, and what waits is bounded."""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from app.auth import service
from app.main import create_app
from app.sandbox import process
from app.sandbox.process import Limits
from app.settings import Settings
from tests.app.cli.conftest import serving
from tests.waiting import wait_until

REVIEWS = "text,label\n" + "good,pos\nbad,neg\n" * 20
SLOW = "slow-child-of-this-test"


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Commands named here run for a minute."""
    commands: list[str] = []
    usual = process._command

    def command(arguments: Sequence[str], limits: Limits) -> list[str]:
        if arguments[0] in commands:
            return [sys.executable, "-c", "import time; time.sleep(60)", SLOW, str(os.getpid())]
        return usual(arguments, limits)

    monkeypatch.setattr(process, "_command", command)
    return commands


def children() -> int:
    """How many slow ones there are."""
    found = 0
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:  # it has just ended
            continue
        found += words[-3:-1] == [SLOW, str(os.getpid())]
    return found


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    limited = settings.model_copy(update={"key_reads": 100, "max_reads": 100})
    with serving(create_app(limited)) as address:
        yield address


def upload(url: str, name: str = "a", timeout: float = 30) -> httpx2.Response:
    file = {"file": (f"{name}.csv", REVIEWS + f"{name},pos\n")}
    return httpx2.post(f"{url}/v1/datasets", files=file, timeout=timeout)


def ask(url: str, path: str, **headers: str) -> socket.socket:
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname or "", address.port or 0))
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *(f"{k}: {v}" for k, v in headers.items())]
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    return connection


@pytest.mark.parametrize("path", ["/v1/datasets/a/rows", "/datasets/a/rows"])
def test_reads_whose_caller_left_end_and_delay_nobody(url: str, slow: list[str], path: str) -> None:
    assert upload(url).status_code == 201
    slow.append("preview")
    connections = [ask(url, path) for _ in range(60)]
    wait_until(lambda: children() == 2, what="two reads")
    assert upload(url, "beside").status_code == 201  # while they go on
    for each in connections:
        each.close()
    wait_until(lambda: children() == 0, what="an end of what nobody waits for")
    slow.clear()
    assert len(httpx2.get(f"{url}/v1/datasets/a/rows").json()["data"]) == 20


def test_an_upload_whose_caller_left_is_not_kept(url: str, slow: list[str]) -> None:
    slow.append("inspect")
    with pytest.raises(httpx2.TimeoutException):
        upload(url, timeout=2)
    wait_until(lambda: children() == 0, what="an end of the check")
    slow.clear()
    assert httpx2.get(f"{url}/v1/datasets").json()["data"] == []
    assert upload(url).status_code == 201


def test_a_key_and_all_together_have_so_many_reads(
    locked: Settings, slow: list[str], new_key: Callable[..., service.NewKey]
) -> None:
    limited = locked.model_copy(update={"key_reads": 3, "max_reads": 4})
    one, two, three = ({"Authorization": f"Bearer {new_key().text}"} for _ in range(3))
    with serving(create_app(limited)) as url, ExitStack() as opened:
        file = {"file": ("a.csv", REVIEWS)}
        assert httpx2.post(f"{url}/v1/datasets", files=file, headers=one).status_code == 201
        slow.append("preview")
        rows = "/v1/datasets/a/rows"

        def refused(headers: dict[str, str]) -> str:
            with httpx2.Client(base_url=url, headers=headers, timeout=0.5) as client:
                try:
                    answer = client.get(rows)
                except httpx2.TimeoutException:
                    return ""
            assert answer.status_code == 429
            assert int(answer.headers["Retry-After"]) > 0
            return str(answer.json()["code"])

        for headers in (one, one, one, two):
            opened.enter_context(ask(url, rows, **headers))
        wait_until(lambda: refused(one) == "key_queue_full", what="a refusal of the key")
        wait_until(lambda: refused(three) == "queue_full", what="a refusal of everyone")
        opened.close()
        wait_until(lambda: refused(one) == "", what="room again")


def test_a_call_that_waits_for_a_thread_never_starts_once_its_caller_left(
    settings: Settings,
) -> None:
    app = create_app(settings)
    started: list[int] = []

    @app.get("/v1/slow")
    def slow() -> None:
        started.append(1)
        time.sleep(0.5)

    with serving(app) as url:
        connections = [ask(url, "/v1/slow") for _ in range(100)]
        wait_until(lambda: bool(started), what="a first call")
        for each in connections:
            each.close()
        assert httpx2.get(f"{url}/v1/jobs", timeout=30).status_code == 200
        # As many as there are threads, and some whose turn came before their end was heard.
        assert len(started) < 90
