"""Tests of many concurrent clients against the running service."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from app.serving import model_pool
from lora_core.process_settings import available_cores
from tests.app.cli.conftest import serving
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import WAIT, StubLoader, StubPredictor

SWAPS = 8
CLIENTS = 50
LONG = "a film " * 72 + "at last"  # counts as 512 tokens until it is tokenized
PRODUCTION = "/v1/models/sentiment/aliases/production"


@pytest.fixture
def url(app: FastAPI, publish: Publish) -> Iterator[str]:
    publish()
    with serving(app) as address:
        yield address


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_texts_of_disconnected_clients_are_not_computed(app: FastAPI, url: str) -> None:
    stub, admission = StubPredictor(), app.state.serving.admission
    app.state.serving.pool._load_encoder = lambda *_, **__: stub
    stub.engine.gate.clear()
    host, _, port = url.removeprefix("http://").partition(":")
    body = json.dumps({"inputs": "a film"}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    connections = [socket.create_connection((host, int(port))) for _ in range(CLIENTS)]
    for connection in connections:
        connection.sendall(request)
    wait_until(lambda: admission.texts == CLIENTS and len(stub.engine.batches) == available_cores())
    computing = sum(map(len, stub.engine.batches))
    for connection in connections:
        connection.close()
    wait_until(lambda: admission.texts == 0)
    stub.engine.gate.set()
    response = httpx2.post(f"{url}/predict", json={"inputs": "still there"}, timeout=WAIT)
    assert response.status_code == 200
    assert sum(map(len, stub.engine.batches)) == computing + 1
    dropped = f'te_request_failure{{err="dropped"}} {CLIENTS - computing}.0'
    assert dropped in httpx2.get(f"{url}/metrics").text


def test_moving_an_alias_fails_no_request(
    url: str, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_pool, "CACHE_TTL_SECONDS", 0.01)
    publish(promote=False, top_label="bad")
    stop = threading.Event()
    expected = {"sentiment:1": "good", "sentiment:2": "bad"}

    def send() -> list[str]:
        seen = []
        with httpx2.Client(base_url=url, timeout=WAIT) as client:
            while not stop.is_set():
                response = client.post("/predict", json={"inputs": "x", "model": "sentiment"})
                assert response.status_code == 200, response.text
                version = response.headers["x-model-version"]
                assert response.json()[0]["label"] == expected[version]
                seen.append(version)
        return seen

    with ThreadPoolExecutor(4) as executor, httpx2.Client(base_url=url, timeout=WAIT) as admin:
        loops = [executor.submit(send) for _ in range(4)]
        for swap in range(SWAPS):
            _move_alias(admin, 2 - swap % 2)
        stop.set()
        seen = [version for each in loops for version in each.result()]
    assert set(seen) == set(expected)


def _move_alias(admin: httpx2.Client, number: int) -> None:
    """Move the alias and wait until it takes effect."""
    assert admin.put(PRODUCTION, json={"version": number}).status_code == 200

    def moved() -> bool:
        response = admin.post("/predict", json={"inputs": "x", "model": "sentiment"})
        assert response.status_code == 200
        return bool(response.headers["x-model-version"] == f"sentiment:{number}")

    wait_until(moved)


def test_slow_load_does_not_hold_requests_past_their_deadline(app: FastAPI, url: str) -> None:
    loader = StubLoader()
    app.state.serving.pool._load_encoder = loader
    loader.gate.clear()

    def send(**headers: str) -> httpx2.Response:
        return httpx2.post(
            f"{url}/predict", json={"inputs": "a film"}, headers=headers, timeout=WAIT
        )

    for _ in range(2):
        late = send(**{"X-Request-Timeout": "0.5"})
        assert (late.status_code, late.json()["code"]) == (503, "model_loading")
        assert late.headers["Retry-After"]
    loader.gate.set()
    assert send().status_code == 200
    assert len(loader.loads) == 1  # the load continued


def test_deadlines_over_http(app: FastAPI, url: str) -> None:
    stub = StubPredictor()
    app.state.serving.pool._load_encoder = lambda *_, **__: stub
    stub.engine.gate.clear()

    async def send() -> tuple[Any, Any]:
        async with httpx2.AsyncClient(base_url=url, timeout=WAIT) as client:
            ahead = [
                client.post("/predict", json={"inputs": "x"}) for _ in range(available_cores())
            ]
            first = asyncio.gather(*ahead)
            await asyncio.to_thread(
                wait_until, lambda: len(stub.engine.batches) == available_cores()
            )
            headers = {"X-Request-Timeout": "0.5"}
            late = client.post("/predict", json={"inputs": "y"}, headers=headers)
            waiting = asyncio.create_task(late)
            await asyncio.sleep(1)
            stub.engine.gate.set()
            return await first, await waiting

    first, late = asyncio.run(send())
    assert {response.status_code for response in first} == {200}
    assert (late.status_code, late.json()["code"]) == (504, "deadline_passed")
    assert late.json()["error_type"] == "Timeout"
    assert stub.engine.batches == [[1]] * available_cores()


async def request_concurrently(
    url: str, connections: int, send: Callable[[httpx2.AsyncClient], Any]
) -> Any:
    """Return what each client gets; each has its own connection."""
    limits = httpx2.Limits(max_connections=connections)
    async with httpx2.AsyncClient(base_url=url, timeout=WAIT, limits=limits) as client:
        return await asyncio.gather(*(send(client) for _ in range(connections)))


def test_64_clients_in_a_closed_loop_are_all_served(url: str) -> None:
    """From the first request on, which loads the model."""

    async def send(client: httpx2.AsyncClient) -> list[int]:
        return [
            (await client.post("/predict", json={"inputs": LONG})).status_code for _ in range(3)
        ]

    assert asyncio.run(request_concurrently(url, 64, send)) == [[200] * 3] * 64


@pytest.mark.parametrize(
    ("timeout", "capacity"),
    [
        pytest.param({}, 64, marks=pytest.mark.slow),
        ({"X-Request-Timeout": "12"}, 58),
    ],
)
def test_flood_is_rejected_before_anything_is_computed(
    app: FastAPI, url: str, timeout: dict[str, str], capacity: int
) -> None:
    """Admitted requests are served: six seconds of work if the client waits for twelve."""
    stub, flood = StubPredictor(), 5 * 64
    app.state.serving.pool._load_encoder = lambda *_, **__: stub
    app.state.serving.batcher.tokens_per_second = 5000.0
    stub.engine.gate.clear()
    rejected: list[httpx2.Response] = []

    async def send(client: httpx2.AsyncClient) -> int:
        response = await client.post("/predict", json={"inputs": LONG}, headers=timeout)
        if response.status_code == 429:
            assert not stub.engine.gate.is_set()
            rejected.append(response)
            if len(rejected) == flood - capacity:
                stub.engine.gate.set()
        return response.status_code

    statuses = asyncio.run(request_concurrently(url, flood, send))
    assert (statuses.count(200), statuses.count(429)) == (capacity, flood - capacity)
    for response in rejected:
        assert response.json()["code"] == "overloaded"
        assert 1 <= int(response.headers["Retry-After"]) <= 30
