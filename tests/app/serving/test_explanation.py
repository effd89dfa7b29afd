"""Tests of `POST /v1/models/{ref}/explain` against the predictions of `/predict`."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import permutations
from statistics import fmean
from typing import Any

import pytest
from dirty_equals import IsPartialDict
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.auth.tables import LOCAL_KEY_ID
from app.serving import explanation, loaded_model
from app.serving.admission import BURST_SECONDS, KeyRateLimiter
from app.serving.client_formats import PredictBodyWithoutModel, parse_predict_request
from app.serving.explanation import CHUNK_TOKENS, MAX_WORDS, sample_permutations
from app.serving.loaded_model import LoadedEncoderModel
from app.serving.service import MAX_TEXTS_IN_FLIGHT, InferenceService, PredictResult
from tests.app.serving.conftest import Publish, RecordThreads
from tests.app.serving.stub import WAIT, StubPredictor
from tests.app.serving.test_admission import make_controller

TOLERANCE = 1e-5  # captum sums in float32
LONG = "a good film that was not dull " * 20


def explain(client: TestClient, inputs: str, ref: str = "sentiment", **more: Any) -> Any:
    response = client.post(f"/v1/models/{ref}/explain", json={"inputs": inputs, **more})
    assert response.status_code == 200, response.text
    return response.json()


def error_of(client: TestClient, ref: str = "sentiment", **body: Any) -> tuple[int, Any]:
    response = client.post(f"/v1/models/{ref}/explain", json=body)
    assert response.headers["content-type"] == "application/problem+json"
    return response.status_code, response.json()


def probability(client: TestClient, text: str, label: str) -> float:
    rows = client.post("/predict", json={"inputs": text}).json()
    return next(float(row["score"]) for row in rows if row["label"] == label)


def expected_values(
    client: TestClient, explanation: Any, text: str, permutations: Any
) -> list[float]:
    """Compute Shapley values from the predictions for texts that lack some of the words.

    The score of the empty text is taken from `explanation`, because /predict rejects empty texts.
    """
    scores: dict[frozenset[int], float] = {frozenset(): explanation["empty_score"]}

    def score(kept: frozenset[int]) -> float:
        if kept not in scores:
            remaining = text
            for number in reversed(range(len(explanation["words"]))):
                if number not in kept:
                    word = explanation["words"][number]
                    remaining = remaining[: word["start"]] + remaining[word["end"] :]
            scores[kept] = probability(client, remaining, explanation["label"])
        return scores[kept]

    values: list[list[float]] = [[] for _ in explanation["words"]]
    for permutation in permutations:
        for position, number in enumerate(permutation):
            before = frozenset(permutation[:position])
            values[number].append(score(before | {number}) - score(before))
    return [fmean(each) for each in values]


@pytest.mark.parametrize(
    "text",
    [
        "a good film",
        "not good good not",
        "unwatchably boringly, isn't it?",
        "naïve 😀 电影",
        "  awful  ",
        "the good.",
    ],
)
def test_values_of_few_words_match_predict(client: TestClient, publish: Publish, text: str) -> None:
    publish()
    explanation = explain(client, text)
    assert [text[word["start"] : word["end"]] for word in explanation["words"]] == [
        word["text"] for word in explanation["words"]
    ]
    assert "".join(word["text"] for word in explanation["words"]) == "".join(text.split())
    expected = expected_values(
        client, explanation, text, permutations(range(len(explanation["words"])))
    )
    assert [word["score"] for word in explanation["words"]] == pytest.approx(
        expected, abs=TOLERANCE
    )
    assert explanation["score"] == pytest.approx(
        probability(client, text, explanation["label"]), abs=TOLERANCE
    )
    assert explanation["texts"] == 2 ** len(explanation["words"])
    assert not explanation["grouped"]


def test_values_of_many_words_match_predict(client: TestClient, publish: Publish) -> None:
    publish()
    text = "the film was not very good and the plot is awful"
    explanation = explain(client, text)
    expected = expected_values(client, explanation, text, sample_permutations(11, 13))
    assert [word["score"] for word in explanation["words"]] == pytest.approx(
        expected, abs=TOLERANCE
    )
    total = sum(word["score"] for word in explanation["words"])
    assert total == pytest.approx(explanation["score"] - explanation["empty_score"], abs=TOLERANCE)
    repeated = explain(client, text)
    for word, other in zip(explanation["words"], repeated["words"], strict=True):
        assert word == {**other, "score": pytest.approx(other["score"], abs=TOLERANCE)}


def test_label_can_be_chosen(client: TestClient, publish: Publish) -> None:
    publish()
    good, bad = (explain(client, "a dull film", label=label) for label in ("good", "bad"))
    assert explain(client, "a dull film")["label"] == good["label"] == "good"
    assert bad["label"] == "bad"
    assert good["score"] + bad["score"] == pytest.approx(1)
    for word, other in zip(good["words"], bad["words"], strict=True):
        assert word["score"] == pytest.approx(-other["score"], abs=TOLERANCE)


def test_response_names_version_and_engine(client: TestClient, publish: Publish) -> None:
    publish()
    publish(top_label="bad", promote=False)
    for ref, version, label in (
        ("sentiment", 1, "good"),
        ("sentiment@production", 1, "good"),
        ("sentiment:2", 2, "bad"),
    ):
        response = client.post(f"/v1/models/{ref}/explain", json={"inputs": "a film"})
        assert response.headers["x-model-version"] == f"sentiment:{version}"
        assert response.headers["x-engine"] == "torch-fp32"
        assert response.json()["label"] == label


def test_response_names_one_of_two_versions_with_the_same_model(
    client: TestClient, publish: Publish
) -> None:
    publish()
    [version] = client.get("/v1/models/sentiment").json()["versions"]
    registered = client.post("/v1/models/copy/versions", json={"job_id": version["job_id"]})
    assert registered.status_code == 201
    for ref in ("sentiment:1", "copy:1"):
        response = client.post(f"/v1/models/{ref}/explain", json={"inputs": "a film"})
        assert response.headers["x-model-version"] == ref


def test_many_words_are_grouped(client: TestClient, publish: Publish) -> None:
    publish()
    text = "a good film that was not dull " * 6  # 42 words
    explanation = explain(client, text)
    assert explanation["grouped"]
    assert len(explanation["words"]) == MAX_WORDS
    assert " ".join(word["text"] for word in explanation["words"]) == text.strip()


def test_truncated_words_are_not_explained(client: TestClient, publish: Publish) -> None:
    publish()
    response = client.post("/v1/models/sentiment/explain", json={"inputs": LONG})
    explanation = response.json()
    assert response.headers["x-truncated"] == "1"
    assert explanation["score"] == pytest.approx(probability(client, LONG, "good"), abs=TOLERANCE)
    assert explanation["words"][-1]["end"] < len(LONG) / 2
    short = client.post("/v1/models/sentiment/explain", json={"inputs": "a film"})
    assert "x-truncated" not in short.headers


def test_text_without_words(client: TestClient, publish: Publish) -> None:
    publish()
    explanation = explain(client, "\u200b")
    assert (explanation["words"], explanation["texts"]) == ([], 1)
    assert explanation["score"] == explanation["empty_score"]


def test_invalid_requests_are_rejected(client: TestClient, publish: Publish) -> None:
    publish()
    for text in ("", " \n"):
        status, problem = error_of(client, inputs=text)
        assert (status, problem["code"]) == (400, "empty_input")
    status, problem = error_of(client, inputs="a film", label="<b>")
    assert (status, problem) == (422, IsPartialDict(code="label_unknown"))
    assert problem["errors"][0]["at"] == "label"
    assert problem["detail"] == "sentiment:1 does not have this label. Its labels are: bad, good."
    for body in ({"inputs": ["a", "b"]}, {"inputs": "a\x00"}, {"inputs": "a", "top": 3}, {}):
        assert error_of(client, **body)[0] == 422
    for ref in ("other", "sentiment:7"):
        assert error_of(client, ref, inputs="a film")[0] == 404


def test_explain_requires_the_predict_scope(anonymous_client: TestClient, new_key: Any) -> None:
    def others(*scopes: str) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {new_key(*scopes).text}"}
        response = anonymous_client.post(
            "/v1/models/other/explain", json={"inputs": "x"}, headers=headers
        )
        return response.status_code, response.json()["code"]

    assert others("models:read") == (403, "scope_missing")
    assert others("predict") == (404, "model_not_found")


Compute = Callable[..., Awaitable[Any]]
Before = Callable[[list[int]], Awaitable[None]]
MANY_TOKENS = "twelve char " * 16  # for the stub, whose tokens are characters


@pytest.fixture
def record_chunks(app: FastAPI, client: TestClient, publish: Publish) -> Callable[..., list[int]]:
    """Serve a stub; record the tokens of each queued chunk, and call `before` for each."""
    publish()
    app.state.serving.pool._load_encoder = lambda *_, **__: StubPredictor()
    batcher, tokens = app.state.serving.batcher, list[int]()
    compute: Compute = batcher.compute

    def record(before: Before | None = None) -> list[int]:
        async def recording(engine: Any, adapter: Any, texts: Any, **settings: Any) -> Any:
            tokens.append(sum(text.length for text in texts))
            if before is not None:
                await before(tokens)
            return await compute(engine, adapter, texts, **settings)

        batcher.compute = recording
        return tokens

    return record


def test_texts_are_queued_in_chunks(
    client: TestClient, record_chunks: Callable[..., list[int]]
) -> None:
    tokens = record_chunks()
    explain(client, MANY_TOKENS)
    assert len(tokens) > 3
    assert max(tokens) <= CHUNK_TOKENS


def test_explanation_needs_no_thread_of_other_routes(
    client: TestClient,
    record_chunks: Callable[..., list[int]],
    monkeypatch: pytest.MonkeyPatch,
    record_threads: RecordThreads,
) -> None:
    monkeypatch.setattr(loaded_model, "MAX_INLINE_OUTPUTS", 1)
    record_chunks()
    decoded = record_threads(LoadedEncoderModel, "decode")
    attributed = record_threads(explanation, "shapley_values")
    explain(client, "a good film")
    assert decoded
    assert attributed
    assert {name.partition("_")[0] for name in [*decoded, *attributed]} == {"tokenize"}


def test_other_requests_run_between_chunks(
    app: FastAPI, client: TestClient, record_chunks: Callable[..., list[int]]
) -> None:
    serving: InferenceService = app.state.serving
    request = parse_predict_request(
        PredictBodyWithoutModel.model_validate({"inputs": "a film"}), None, max_inputs=1
    )
    others: list[asyncio.Task[PredictResult]] = []

    async def before(tokens: list[int]) -> None:
        if len(tokens) == 1:  # while the first chunk is queued
            deadline = time.monotonic() + WAIT
            work = serving.predict(request, "sentiment", key_id=LOCAL_KEY_ID, deadline=deadline)
            others.append(asyncio.create_task(work))
        elif len(tokens) == 3:  # the other request was queued second
            await asyncio.wait(others, timeout=WAIT)
            assert others[0].result().version == "sentiment:1"

    record_chunks(before)
    explain(client, MANY_TOKENS)
    assert others[0].done()


def test_explanation_ends_at_its_deadline(
    client: TestClient, record_chunks: Callable[..., list[int]]
) -> None:
    async def before(tokens: list[int]) -> None:
        if len(tokens) == 2:
            await asyncio.sleep(0.7)

    tokens = record_chunks(before)
    explain(client, "x")
    tokens.clear()
    response = client.post(
        "/v1/models/sentiment/explain",
        json={"inputs": MANY_TOKENS},
        headers={"X-Request-Timeout": "0.6"},
    )
    assert (response.status_code, response.json()["code"]) == (504, "deadline_passed")
    assert len(tokens) <= 2


def test_explanation_is_rejected_under_overload(
    app: FastAPI, client: TestClient, record_chunks: Callable[..., list[int]]
) -> None:
    serving: InferenceService = app.state.serving

    async def before(tokens: list[int]) -> None:
        if len(tokens) == 2:
            serving.admission.texts += MAX_TEXTS_IN_FLIGHT  # other requests

    record_chunks(before)
    for _ in ("between chunks", "at admission"):
        response = client.post("/v1/models/sentiment/explain", json={"inputs": MANY_TOKENS})
        assert (response.status_code, response.json()["code"]) == (429, "overloaded")
        assert int(response.headers["Retry-After"]) >= 1
    assert serving.admission.texts == MAX_TEXTS_IN_FLIGHT


def test_each_text_counts_toward_the_rate_limit(
    app: FastAPI, client: TestClient, record_chunks: Callable[..., list[int]]
) -> None:
    record_chunks()
    limiter = app.state.serving.rate_limiter = KeyRateLimiter(1.0, clock=lambda: 0.0)  # ten at once
    explanation = explain(client, "a good film")
    assert limiter._buckets[LOCAL_KEY_ID].level == BURST_SECONDS - explanation["texts"] == 2
    response = client.post("/v1/models/sentiment/explain", json={"inputs": "a good film"})
    assert (response.status_code, response.json()["code"]) == (429, "rate_limit_exceeded")


def test_rejected_explanation_does_not_count_toward_rate_limit(
    app: FastAPI, client: TestClient, record_chunks: Callable[..., list[int]]
) -> None:
    record_chunks()
    serving: InferenceService = app.state.serving
    serving.rate_limiter = KeyRateLimiter(1.0, clock=lambda: 0.0)  # ten at once
    serving.admission = make_controller(texts=2)
    serving.admission.texts = 1  # another request
    status, problem = error_of(client, inputs="a good film")
    assert (status, problem["code"]) == (429, "overloaded")
    serving.admission.texts = 0
    assert explain(client, "a good film")["texts"] == 8


def test_half_of_the_timeout_limits_what_an_explanation_waits_for(
    app: FastAPI, client: TestClient, record_chunks: Callable[..., list[int]]
) -> None:
    tokens = record_chunks()
    serving: InferenceService = app.state.serving
    serving.admission = make_controller(texts=MAX_TEXTS_IN_FLIGHT, speed=1000.0)
    serving.admission.texts = 1  # another request
    for timeout, status in (("2", 429), ("20", 200)):
        response = client.post(
            "/v1/models/sentiment/explain",
            json={"inputs": MANY_TOKENS},
            headers={"X-Request-Timeout": timeout},
        )
        assert response.status_code == status, response.text
        assert bool(tokens) == (status == 200)
