"""Many callers at once, against the running service: they hang up, and versions change."""

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

from app.serving import model_resolver
from lora_core.process import cores
from tests.app.cli.conftest import serving
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import WAIT, Loader, StubPredictor

SWAPS = 20
CALLERS = 50
LONG = "a film " * 72 + "at last"  # counts with 512 tokens until it is tokenised
PRODUCTION = "/v1/models/sentiment/aliases/production"


@pytest.fixture
def url(app: FastAPI, publish: Publish) -> Iterator[str]:
    publish()
    with serving(app) as address:
        yield address


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_who_hangs_up_is_not_computed(app: FastAPI, url: str) -> None:
    stub, admission = StubPredictor(), app.state.serving.admission
    app.state.serving.pool._load = lambda *_, **__: stub
    stub.engine.gate.clear()
    host, _, port = url.removeprefix("http://").partition(":")
    body = json.dumps({"inputs": "a film"}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
    question = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    callers = [socket.create_connection((host, int(port))) for _ in range(CALLERS)]
    for caller in callers:
        caller.sendall(question)
    until(lambda: admission.texts == CALLERS and len(stub.engine.batches) == cores())
    computing = sum(map(len, stub.engine.batches))
    for caller in callers:
        caller.close()
    until(lambda: admission.texts == 0)
    stub.engine.gate.set()
    answer = httpx2.post(f"{url}/predict", json={"inputs": "still there"}, timeout=WAIT)
    assert answer.status_code == 200
    assert sum(map(len, stub.engine.batches)) == computing + 1
    dropped = f'te_request_failure{{err="dropped"}} {CALLERS - computing}.0'
    assert dropped in httpx2.get(f"{url}/metrics").text


def test_a_moved_alias_fails_no_call(
    url: str, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_resolver, "FRESH_SECONDS", 0.01)
    publish(promote=False, favours="bad")
    stop = threading.Event()
    expected = {"sentiment:1": "good", "sentiment:2": "bad"}

    def ask() -> list[str]:
        seen = []
        with httpx2.Client(base_url=url, timeout=WAIT) as client:
            while not stop.is_set():
                answer = client.post("/predict", json={"inputs": "x", "model": "sentiment"})
                assert answer.status_code == 200, answer.text
                version = answer.headers["x-model-version"]
                assert answer.json()[0]["label"] == expected[version]
                seen.append(version)
        return seen

    with ThreadPoolExecutor(4) as callers, httpx2.Client(base_url=url, timeout=WAIT) as admin:
        asking = [callers.submit(ask) for _ in range(4)]
        for swap in range(SWAPS):
            _move(admin, 2 - swap % 2)
        stop.set()
        seen = [version for each in asking for version in each.result()]
    assert set(seen) == set(expected)


def _move(admin: httpx2.Client, number: int) -> None:
    """Until it is seen."""
    assert admin.put(PRODUCTION, json={"version": number}).status_code == 200

    def moved() -> bool:
        answer = admin.post("/predict", json={"inputs": "x", "model": "sentiment"})
        assert answer.status_code == 200
        return bool(answer.headers["x-model-version"] == f"sentiment:{number}")

    until(moved)


def test_a_model_that_loads_for_long_keeps_nobody_past_the_deadline(app: FastAPI, url: str) -> None:
    loader = Loader()
    app.state.serving.pool._load = loader
    loader.gate.clear()

    def ask(**headers: str) -> httpx2.Response:
        return httpx2.post(
            f"{url}/predict", json={"inputs": "a film"}, headers=headers, timeout=WAIT
        )

    for _ in range(2):
        late = ask(**{"X-Request-Timeout": "0.05"})
        assert (late.status_code, late.json()["code"]) == (503, "model_loading")
        assert late.headers["Retry-After"]
    loader.gate.set()
    assert ask().status_code == 200
    assert len(loader.loads) == 1  # it went on


def test_deadlines_are_kept_over_http(app: FastAPI, url: str) -> None:
    stub = StubPredictor()
    app.state.serving.pool._load = lambda *_, **__: stub
    stub.engine.gate.clear()

    async def ask() -> tuple[Any, Any]:
        async with httpx2.AsyncClient(base_url=url, timeout=WAIT) as client:
            ahead = [client.post("/predict", json={"inputs": "x"}) for _ in range(cores())]
            first = asyncio.gather(*ahead)
            await asyncio.to_thread(until, lambda: len(stub.engine.batches) == cores())
            headers = {"X-Request-Timeout": "0.05"}
            late = client.post("/predict", json={"inputs": "y"}, headers=headers)
            waiting = asyncio.create_task(late)
            await asyncio.sleep(0.1)
            stub.engine.gate.set()
            return await first, await waiting

    first, late = asyncio.run(ask())
    assert {answer.status_code for answer in first} == {200}
    assert (late.status_code, late.json()["code"]) == (504, "deadline_passed")
    assert late.json()["error_type"] == "Timeout"
    assert stub.engine.batches == [[1]] * cores()


async def ask_at_once(url: str, callers: int, ask: Callable[[httpx2.AsyncClient], Any]) -> Any:
    """What each caller gets; each has a connection of its own."""
    limits = httpx2.Limits(max_connections=callers)
    async with httpx2.AsyncClient(base_url=url, timeout=WAIT, limits=limits) as client:
        return await asyncio.gather(*(ask(client) for _ in range(callers)))


def test_64_who_ask_again_as_soon_as_they_are_answered_are_all_answered(url: str) -> None:
    """From the first question on, which loads the model."""

    async def ask(client: httpx2.AsyncClient) -> list[int]:
        return [
            (await client.post("/predict", json={"inputs": LONG})).status_code for _ in range(3)
        ]

    assert asyncio.run(ask_at_once(url, 64, ask)) == [[200] * 3] * 64


@pytest.mark.parametrize(("timeout", "room"), [({}, 64), ({"X-Request-Timeout": "12"}, 58)])
def test_a_flood_is_refused_before_anything_is_computed(
    app: FastAPI, url: str, timeout: dict[str, str], room: int
) -> None:
    """And whoever was let in is answered: six seconds of work, if the caller waits for twelve."""
    stub, flood = StubPredictor(), 5 * 64
    app.state.serving.pool._load = lambda *_, **__: stub
    app.state.serving.batcher.tokens_per_second = 5000.0
    stub.engine.gate.clear()
    refused: list[httpx2.Response] = []

    async def ask(client: httpx2.AsyncClient) -> int:
        answer = await client.post("/predict", json={"inputs": LONG}, headers=timeout)
        if answer.status_code == 429:
            assert not stub.engine.gate.is_set()
            refused.append(answer)
            if len(refused) == flood - room:
                stub.engine.gate.set()
        return answer.status_code

    statuses = asyncio.run(ask_at_once(url, flood, ask))
    assert (statuses.count(200), statuses.count(429)) == (room, flood - room)
    for answer in refused:
        assert answer.json()["code"] == "overloaded"
        assert 1 <= int(answer.headers["Retry-After"]) <= 30
