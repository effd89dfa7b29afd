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

from app.serving import meanings
from lora_core.process import cores
from tests.app.cli.conftest import serving
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import WAIT, Loader, StubPredictor

SWAPS = 20
CALLERS = 50
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
    monkeypatch.setattr(meanings, "FRESH_SECONDS", 0.01)
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
