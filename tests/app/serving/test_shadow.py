"""Tests of shadow evaluation: a candidate predicts live texts, and no request waits for it."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.serving import loaded_model, shadow
from app.serving.loaded_model import LoadedEncoderModel
from lora_core.tasks.regression import Regression
from tests.app.serving.conftest import Publish, RecordThreads
from tests.app.serving.stub import WAIT, StubAdapter, StubLoader, StubPredictor

SHADOW = "/v1/models/sentiment/aliases/shadow"
TEXT = "a good film"


@pytest.fixture(autouse=True)
def _query_candidates_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "CANDIDATES_TTL_SECONDS", 0.0)


def predict(client: TestClient, inputs: Any = TEXT) -> Any:
    response = client.post("/predict", json={"inputs": inputs, "model": "sentiment"})
    assert response.status_code == 200
    return response


def shadow_stats(client: TestClient) -> Any:
    return client.get("/v1/models/sentiment/shadow").json()


def wait_until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT
    while not (result := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return result


def test_candidate_is_compared_with_production(client: TestClient, publish: Publish) -> None:
    publish()
    publish(promote=False, top_label="bad")
    publish(promote=False)
    assert predict(client).status_code == 200
    assert shadow_stats(client) == []
    client.put(SHADOW, json={"version": 2})

    def compared() -> Any:
        assert predict(client, ["a good film", "fine"]).headers["x-model-version"] == "sentiment:1"
        pairs = shadow_stats(client)
        return pairs if pairs and pairs[0]["texts"] >= 4 else None

    wait_until(compared)
    client.post("/predict", json={"inputs": TEXT, "model": "sentiment:3"}).raise_for_status()
    [pair] = shadow_stats(client)
    assert (pair["version"], pair["shadow"]) == ("sentiment:1", "sentiment:2")
    assert pair["agreement"] == 0.0
    assert 0.5 < pair["mean_difference"] < 1
    assert pair["failed"] == 0
    text = client.get("/metrics").text
    assert 'loraworks_shadow_texts_total{outcome="differed",shadow="sentiment:2"' in text
    client.delete(SHADOW)
    evaluator = client.app.state.serving.shadow_evaluator  # type: ignore[attr-defined]
    wait_until(lambda: predict(client) and not evaluator._candidates)


def test_agreement_is_counted(client: TestClient, publish: Publish) -> None:
    directory = publish()
    client.put(SHADOW, json={"version": 1})  # production itself: nothing to compare
    for _ in range(3):
        predict(client)
    assert shadow_stats(client) == []
    publish(promote=False)
    client.put(SHADOW, json={"version": 2})
    wait_until(
        lambda: predict(client) and shadow_stats(client) and shadow_stats(client)[0]["texts"]
    )
    assert shadow_stats(client)[0]["agreement"] == 1.0
    assert directory.exists()


def test_many_outputs_are_compared_in_another_thread(
    client: TestClient,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
    record_threads: RecordThreads,
) -> None:
    monkeypatch.setattr(loaded_model, "MAX_INLINE_OUTPUTS", 1)
    publish()
    publish(promote=False)
    client.put(SHADOW, json={"version": 2})
    decoded = record_threads(LoadedEncoderModel, "decode")
    compared = record_threads(shadow, "compare_shadow_outputs")
    wait_until(lambda: predict(client) and compared)
    assert {name.partition("_")[0] for name in [*decoded, *compared]} == {"tokenize"}


def test_a_candidate_with_another_task_fails(
    app: FastAPI, client: TestClient, publish: Publish
) -> None:
    served = publish()
    publish(promote=False)
    other = StubPredictor(task=Regression(0.0, 1.0))  # type: ignore[arg-type]
    app.state.serving.pool._load_encoder = lambda path, **_: (
        StubPredictor() if path == served else other
    )
    client.put(SHADOW, json={"version": 2})

    def failures() -> Any:
        assert predict(client).status_code == 200
        pairs = shadow_stats(client)
        return pairs and pairs[0]["failed"]

    wait_until(failures)
    assert shadow_stats(client)[0]["texts"] == 0


def test_requests_do_not_wait_for_a_candidate(
    app: FastAPI, client: TestClient, publish: Publish
) -> None:
    publish()
    slow = publish(promote=False)
    predict(client)
    load, stub = app.state.serving.pool._load_encoder, StubPredictor(adapter=StubAdapter())
    stub.engine.gate.clear()
    app.state.serving.pool._load_encoder = lambda path, **how: (
        stub if path == slow else load(path, **how)
    )
    client.put(SHADOW, json={"version": 2})
    wait_until(lambda: predict(client) and stub.engine.busy.is_set())
    stub.engine.failures = [ValueError("broken")]
    stub.engine.gate.set()
    wait_until(lambda: shadow_stats(client)[0]["failed"])
    assert predict(client).status_code == 200


@pytest.mark.parametrize("problem", ["broken", "too large"])
def test_candidate_that_cannot_be_loaded_is_not_loaded_for_each_request(
    app: FastAPI, client: TestClient, publish: Publish, problem: str
) -> None:
    served, candidate = publish(), publish(promote=False)
    client.put(SHADOW, json={"version": 2})
    pool, loader = app.state.serving.pool, StubLoader()
    pool.close()
    pool._load_encoder, pool._max_bytes = loader, 11 if problem == "too large" else 1000
    if problem == "broken":
        loader.broken[candidate] = ValueError(problem)

    def skipped() -> int:
        pairs = shadow_stats(client)
        return pairs[0]["skipped"] if pairs else 0

    wait_until(lambda: predict(client) and skipped() >= 5)
    assert loader.loads == [served, candidate]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/vertex", {"instances": [{"inputs": TEXT, "model": "sentiment"}] * 2}),
        ("/predict", {"inputs": [TEXT] * 2, "model": "sentiment"}),
    ],
)
def test_texts_of_one_request_count_at_once(
    app: FastAPI,
    client: TestClient,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: dict[str, Any],
) -> None:
    publish()
    publish(promote=False)
    client.put(SHADOW, json={"version": 2})
    wait_until(lambda: predict(client) and shadow_stats(client))
    evaluator = app.state.serving.shadow_evaluator
    wait_until(lambda: not evaluator._texts_in_flight)
    [before] = shadow_stats(client)
    monkeypatch.setattr(shadow, "MAX_SHADOW_TEXTS_IN_FLIGHT", 1)
    client.post(path, json=body).raise_for_status()
    wait_until(lambda: not evaluator._texts_in_flight)
    [after] = shadow_stats(client)
    assert (after["texts"] - before["texts"], after["skipped"] - before["skipped"]) == (1, 1)


def test_statistics_in_memory_are_bounded(
    app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow, "MAX_PAIRS", 2)
    evaluator = app.state.serving.shadow_evaluator
    for number in (2, 3, 4):
        evaluator._stats_of("sentiment:1", f"sentiment:{number}", "single_label")
    assert {each.shadow for each in evaluator.list_stats_of_model("sentiment")} == {
        "sentiment:3",
        "sentiment:4",
    }


@pytest.mark.parametrize("broken", ["served", "shadow"])
def test_comparison_that_fails_harms_no_request(
    app: FastAPI,
    client: TestClient,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    served = publish()
    publish(promote=False)
    stubs = {"served": StubPredictor(), "shadow": StubPredictor()}
    app.state.serving.pool._load_encoder = lambda path, **_: stubs[
        "served" if path == served else "shadow"
    ]
    decode = stubs[broken].decode_outputs

    def decode_raw_scores_only(logits: Any, function: str | None = None) -> Any:
        if function is None and broken == "served":
            raise ValueError("broken")
        return decode(logits, function) if function else [[] for _ in logits]

    monkeypatch.setattr(stubs[broken], "decode_outputs", decode_raw_scores_only)
    client.put(SHADOW, json={"version": 2})

    def failures() -> Any:
        body = {"inputs": TEXT, "model": "sentiment", "raw_scores": True}
        assert client.post("/predict", json=body).status_code == 200
        pairs = shadow_stats(client)
        return pairs and pairs[0]["failed"]

    wait_until(failures)
    assert shadow_stats(client)[0]["texts"] == 0
