"""A candidate is scored on live traffic, and nobody waits for it."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.serving import shadow
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import WAIT, StubAdapter, StubPredictor

SHADOW = "/v1/models/sentiment/aliases/shadow"


@pytest.fixture(autouse=True)
def _candidates_are_seen_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "FRESH_SECONDS", 0.0)


def ask(client: TestClient, inputs: Any = "a good film") -> Any:
    answer = client.post("/predict", json={"inputs": inputs, "model": "sentiment"})
    assert answer.status_code == 200
    return answer


def report(client: TestClient) -> Any:
    return client.get("/v1/models/sentiment/shadow").json()


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found


def test_a_candidate_is_compared_with_production(client: TestClient, publish: Publish) -> None:
    publish()
    publish(promote=False, favours="bad")
    assert ask(client).status_code == 200
    assert report(client) == []
    client.put(SHADOW, json={"version": 2})

    def compared() -> Any:
        assert ask(client, ["a good film", "fine"]).headers["x-model-version"] == "sentiment:1"
        pairs = report(client)
        return pairs if pairs and pairs[0]["texts"] >= 4 else None

    [pair] = until(compared)
    assert (pair["version"], pair["shadow"]) == ("sentiment:1", "sentiment:2")
    assert pair["agreement"] == 0.0
    assert 0.5 < pair["mean_difference"] < 1
    assert pair["failed"] == 0
    text = client.get("/metrics").text
    assert 'loraworks_shadow_texts_total{outcome="differed",shadow="sentiment:2"' in text
    client.delete(SHADOW)
    until(lambda: ask(client) and not client.app.state.serving.shadows._candidates)  # type: ignore[attr-defined]


def test_one_that_agrees_or_fails_is_counted(client: TestClient, publish: Publish) -> None:
    directory = publish()
    client.put(SHADOW, json={"version": 1})  # production itself: nothing to compare
    for _ in range(3):
        ask(client)
    assert report(client) == []
    publish(promote=False)
    client.put(SHADOW, json={"version": 2})
    until(lambda: ask(client) and report(client) and report(client)[0]["texts"])
    assert report(client)[0]["agreement"] == 1.0
    assert directory.exists()


def test_nobody_waits_for_a_candidate(app: FastAPI, client: TestClient, publish: Publish) -> None:
    publish()
    slow = publish(promote=False)
    ask(client)
    load, stub = app.state.serving.pool._load, StubPredictor(adapter=StubAdapter())
    stub.engine.gate.clear()
    app.state.serving.pool._load = lambda path, **how: stub if path == slow else load(path, **how)
    client.put(SHADOW, json={"version": 2})
    until(lambda: ask(client) and stub.engine.busy.is_set())
    stub.engine.fails = [ValueError("broken")]
    stub.engine.gate.set()
    until(lambda: report(client)[0]["failed"])
    assert ask(client).status_code == 200
