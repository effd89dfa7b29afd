"""Work of disconnected clients is cancelled, and pending work is limited."""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from app.auth import service
from app.labeling.pools import MAX_LOADS
from app.main import create_app
from app.sandbox import runner
from app.sandbox.runner import SandboxLimits
from app.settings import Settings
from lora_core.confinement import Confinement
from tests.app.cli.conftest import serving
from tests.labeling_rows import create_project, put
from tests.slow import slow_but
from tests.waiting import wait_until

pytestmark = pytest.mark.usefixtures("in_child")
REVIEWS = "text,label\n" + "good,pos\nbad,neg\n" * 20
SLOW = "slow-child-of-this-test"


@pytest.fixture
def slow_commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Commands in this list take a minute."""
    commands: list[str] = []
    usual = runner._command

    def command(
        arguments: Sequence[str], limits: SandboxLimits, confinement: Confinement
    ) -> list[str]:
        if arguments[0] in commands:
            return [sys.executable, "-c", "import time; time.sleep(60)", SLOW, str(os.getpid())]
        return usual(arguments, limits, confinement)

    monkeypatch.setattr(runner, "_command", command)
    return commands


def count_slow_children() -> int:
    """Return the number of slow child processes."""
    count = 0
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = each.read_bytes().decode("utf-8", "replace").split("\0")
        except OSError:  # the process has just ended
            continue
        count += words[-3:-1] == [SLOW, str(os.getpid())]
    return count


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    limited = settings.model_copy(update={"max_reads_per_key": 100, "max_reads": 100})
    with serving(create_app(limited)) as address:
        yield address


def upload(url: str, name: str = "a", timeout: float = 30) -> httpx2.Response:
    file = {"file": (f"{name}.csv", REVIEWS + f"{name},pos\n")}
    return httpx2.post(f"{url}/v1/datasets", files=file, timeout=timeout)


def send_request(url: str, path: str, body: str = "", **headers: str) -> socket.socket:
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname or "", address.port or 0))
    if body:
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}
    lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{k}: {v}" for k, v in headers.items()]
    connection.sendall("\r\n".join([*lines, "", body]).encode())
    return connection


@pytest.mark.parametrize(
    "path", slow_but(["/v1/datasets/a/rows", "/datasets/a/rows"], "/v1/datasets/a/rows")
)
def test_reads_end_when_their_client_disconnects(
    url: str, slow_commands: list[str], path: str
) -> None:
    assert upload(url).status_code == 201
    slow_commands.append("preview")
    connections = [send_request(url, path) for _ in range(60)]
    wait_until(lambda: count_slow_children() == 2, what="two reads")
    assert upload(url, "parallel").status_code == 201  # while the reads are running
    for each in connections:
        each.close()
    wait_until(lambda: count_slow_children() == 0, what="the cancelled reads to end")
    slow_commands.clear()
    assert len(httpx2.get(f"{url}/v1/datasets/a/rows").json()["data"]) == 20


def test_upload_is_not_stored_if_its_client_disconnects(url: str, slow_commands: list[str]) -> None:
    slow_commands.append("inspect")
    with pytest.raises(httpx2.TimeoutException):
        upload(url, timeout=2)
    wait_until(lambda: count_slow_children() == 0, what="the check to end")
    slow_commands.clear()
    assert httpx2.get(f"{url}/v1/datasets").json()["data"] == []
    assert upload(url).status_code == 201


def test_upload_gets_a_503_and_ends_when_the_service_stops(
    settings: Settings, slow_commands: list[str]
) -> None:
    slow_commands.append("inspect")
    with ThreadPoolExecutor(1) as client:
        with serving(create_app(settings)) as url:
            uploaded = client.submit(upload, url)
            wait_until(lambda: count_slow_children() == 1, what="the check to begin")
        response = uploaded.result()
    assert (response.status_code, response.json()["code"]) == (503, "stopping")
    wait_until(lambda: count_slow_children() == 0, seconds=10, what="the check to end")


def test_reads_are_limited_per_key_and_in_total(
    auth_settings: Settings, slow_commands: list[str], new_key: Callable[..., service.CreatedKey]
) -> None:
    limited = auth_settings.model_copy(update={"max_reads_per_key": 3, "max_reads": 4})
    one, two, three = ({"Authorization": f"Bearer {new_key().text}"} for _ in range(3))
    with serving(create_app(limited)) as url, ExitStack() as opened:
        file = {"file": ("a.csv", REVIEWS)}
        assert httpx2.post(f"{url}/v1/datasets", files=file, headers=one).status_code == 201
        slow_commands.append("preview")
        rows = "/v1/datasets/a/rows"

        def rejection_code(headers: dict[str, str]) -> str:
            with httpx2.Client(base_url=url, headers=headers, timeout=0.5) as client:
                try:
                    response = client.get(rows)
                except httpx2.TimeoutException:
                    return ""
            assert response.status_code == 429
            assert int(response.headers["Retry-After"]) > 0
            return str(response.json()["code"])

        for headers in (one, one, one, two):
            opened.enter_context(send_request(url, rows, **headers))
        wait_until(
            lambda: rejection_code(one) == "too_many_requests_for_key",
            what="a rejection by the limit per key",
        )
        wait_until(
            lambda: rejection_code(three) == "queue_full", what="a rejection by the total limit"
        )
        opened.close()
        wait_until(lambda: rejection_code(one) == "", what="a free slot")


def test_queued_request_never_starts_after_its_client_disconnects(
    settings: Settings,
) -> None:
    app = create_app(settings)
    started: list[int] = []
    all_closed = threading.Event()

    @app.get("/v1/slow")
    def slow_commands() -> None:
        started.append(1)
        all_closed.wait(30)

    with serving(app) as url:
        connections = [send_request(url, "/v1/slow") for _ in range(100)]
        wait_until(lambda: bool(started), what="the first request")
        for each in connections:
            each.close()
        assert httpx2.get(f"{url}/livez", timeout=30).status_code == 200  # needs no thread
        all_closed.set()
        assert httpx2.get(f"{url}/v1/jobs", timeout=30).status_code == 200
        # One per thread, and some that started before their disconnect was noticed.
        assert len(started) < 90


def test_checks_of_bases_run_one_at_a_time_beside_uploads(
    url: str, slow_commands: list[str]
) -> None:
    slow_commands.append("check-base")
    path, body = "/v1/bases/check", '{"base": "minilm-l6"}'

    def is_rejected() -> bool:
        headers = {"Content-Type": "application/json"}
        try:
            response = httpx2.post(url + path, content=body, headers=headers, timeout=0.5)
        except httpx2.TimeoutException:
            return False
        return bool(response.json()["code"] == "too_many_requests_for_key")

    with ExitStack() as connections:
        for _ in range(2):
            connections.enter_context(send_request(url, path, body))
        wait_until(lambda: count_slow_children() == 1)
        wait_until(is_rejected)
        assert count_slow_children() == 1
        assert upload(url).status_code == 201
    wait_until(lambda: count_slow_children() == 0)


def test_imports_do_not_delay_uploads(url: str, slow_commands: list[str]) -> None:
    slow_commands.append("unpack")
    path = "/v1/models/sentiment/versions/import"
    request = httpx2.Request("POST", url + path, files={"file": ("m.tar", b"content")})
    headers = {"Content-Type": request.headers["Content-Type"]}
    with ExitStack() as connections:
        for _ in range(2):
            connections.enter_context(send_request(url, path, request.read().decode(), **headers))
        wait_until(lambda: count_slow_children() == 1)
        assert upload(url).status_code == 201
    wait_until(lambda: count_slow_children() == 0)


@pytest.fixture
def labeled(settings: Settings) -> Iterator[httpx2.Client]:
    """A service with a labeling project that has two labels. No child outlives it."""
    app = create_app(settings.model_copy(update={"max_checks": 2}))
    with serving(app) as url, httpx2.Client(base_url=url, timeout=30) as client:
        client.post(
            "/v1/datasets",
            files={"file": ("reviews.csv", b"text\none\ntwo\n")},
            data={"purpose": "predict", "name": "reviews"},
        )
        create_project(client)
        for row in (1, 2):
            put(client, row)
        yield client
    wait_until(lambda: count_slow_children() == 0, seconds=10, what="its children to end")


def test_labels_become_datasets_within_the_limit_of_uploads(
    labeled: httpx2.Client, slow_commands: list[str]
) -> None:
    slow_commands.append("inspect")
    path = "/v1/labeling/mood/dataset"
    with ExitStack() as connections:
        for _ in range(2):
            connections.enter_context(send_request(str(labeled.base_url), path, "{}"))
        wait_until(lambda: count_slow_children() == 2, what="two checks")
        assert labeled.post(path).json()["code"] == "too_many_requests_for_key"
    wait_until(lambda: count_slow_children() == 0, what="the checks to end")


def test_requests_that_wait_for_texts_to_label_leave_threads_to_others(
    labeled: httpx2.Client, slow_commands: list[str]
) -> None:
    create_project(labeled, "other")
    slow_commands.append("texts")

    def is_rejected() -> bool:
        try:
            response = labeled.post("/v1/labeling/other/next", timeout=1)
        except httpx2.TimeoutException:
            return False
        return bool(response.json()["code"] == "queue_full")

    with ExitStack() as connections:
        for _ in range(MAX_LOADS):
            connections.enter_context(
                send_request(str(labeled.base_url), "/v1/labeling/other/next", "{}")
            )
        wait_until(is_rejected)
        assert count_slow_children() == 1
        assert labeled.post("/v1/labeling/mood/next").status_code == 200  # its texts are there
