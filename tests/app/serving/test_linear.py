"""Tests of serving linear models."""

import json
import math
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.serving import explanation, loaded_model, shadow
from app.serving.admission import BURST_SECONDS, KeyRateLimiter
from app.serving.batcher import TextLogits
from app.serving.errors import (
    DeadlineExceeded,
    InferenceFailed,
    NonFiniteScore,
    ServerOverloaded,
)
from app.serving.loaded_model import (
    MAX_INLINE_LINEAR_CHARACTERS,
    LoadedLinearModel,
    TokenizedRequest,
)
from app.serving.service import InferenceService
from lora_core.inference.linear import LinearPredictor
from lora_core.linear.model import LinearModel
from tests.app.serving.conftest import Publish, RecordThreads
from tests.app.serving.test_shadow import wait_until
from tests.hostile_archives import reseal
from tests.linear_artifact import make_linear_artifact

TEXTS = ["a good film", "the plot was bad", "good bad 电影", "nothing of it is known"]


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return make_linear_artifact(tmp_path / "artifact", labels=("bad", "fine", "good"))


@pytest.fixture
def predictor(artifact: Path, publish: Publish) -> LinearPredictor:
    """The predictor of the model in production."""
    predictor = LinearPredictor.load(artifact)
    publish(artifact=artifact)
    return predictor


@pytest.mark.anyio
async def test_tfidf_is_computed_once(artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = LinearPredictor.load(artifact)
    items = predictor.encode(TEXTS)
    expected = predictor.forward(items)
    features, computed = LinearModel.features, []

    def spy(model: LinearModel, texts: Any) -> Any:
        computed.append(features(model, texts))
        return computed[-1]

    monkeypatch.setattr(LinearModel, "features", spy)
    model = LoadedLinearModel("words:1", predictor, None)  # type: ignore[arg-type]
    request = TokenizedRequest(items, 0.0)
    outputs = await model.compute(request, deadline=math.inf, with_states=True)
    for text, row, state in zip(outputs, expected, computed[0], strict=True):
        assert text.logits.tolist() == row.tolist()
        assert (text.state != state).nnz == 0
    assert len(computed) == 1


def predict(client: TestClient, inputs: Any, **more: Any) -> Any:
    response = client.post("/predict", json={"inputs": inputs, "model": "sentiment", **more})
    assert response.status_code == 200, response.text
    return response


def test_linear_model_supports_every_request_format(
    client: TestClient, predictor: LinearPredictor
) -> None:
    expected = [
        [{"label": label, "score": score} for label, score in row]
        for row in predictor.predict(TEXTS)
    ]
    response = predict(client, TEXTS)
    assert response.json() == expected
    assert response.headers["x-engine"] == "linear-fp64"
    assert response.headers["x-model-version"] == "sentiment:1"
    assert "x-truncated" not in response.headers
    assert predict(client, TEXTS[0]).json() == expected[0]
    assert predict(client, TEXTS[0], parameters={"top_k": 1}).json() == [expected[0][:1]]
    assert predict(client, TEXTS, truncate=False).json() == expected
    logits = predictor.forward(predictor.encode(TEXTS[:1]))[0]
    raw = {
        each["label"]: each["score"] for each in predict(client, TEXTS[0], raw_scores=True).json()
    }
    assert [raw[label] for label in predictor.labels] == pytest.approx(list(logits))
    vertex = client.post(
        "/vertex", json={"instances": [{"inputs": TEXTS[0], "model": "sentiment"}]}
    )
    assert vertex.json() == {"predictions": [expected[0]]}
    abstained = predict(client, TEXTS, abstain_below=0.99)
    assert abstained.headers["x-abstained"] == "4"
    info = client.get("/models/sentiment/info").json()
    assert (info["engine"], info["model_dtype"]) == ("linear-fp64", "float64")
    metrics = client.get("/metrics").text
    assert 'engine="linear-fp64"' in metrics


def test_empty_text_is_rejected(client: TestClient, predictor: LinearPredictor) -> None:
    response = client.post("/predict", json={"inputs": ["good", " "]})
    assert response.status_code == 400


def test_long_texts_are_computed_in_another_thread(
    client: TestClient, predictor: LinearPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    states = LinearPredictor.states

    def recording(self: LinearPredictor, items: Any) -> Any:
        names.append(threading.current_thread().name)
        return states(self, items)

    monkeypatch.setattr(LinearPredictor, "states", recording)
    long = [
        "good film " * (MAX_INLINE_LINEAR_CHARACTERS // 20),
        "bad " * MAX_INLINE_LINEAR_CHARACTERS,
    ]
    predictions = predict(client, long).json()
    assert [row[0]["label"] for row in predictions] == ["good", "bad"]
    assert [len(row) for row in predictions] == [3, 3]
    assert predictions[0][0]["score"] == pytest.approx(predictor.predict(long)[0][0][1])
    assert names[-1].startswith("tokenize")
    predict(client, TEXTS)
    assert not names[-1].startswith("tokenize")


@pytest.mark.anyio
async def test_expired_or_failed_batch_raises(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LoadedLinearModel("words:1", LinearPredictor.load(artifact), None)  # type: ignore[arg-type]
    batch = await model.tokenize(TEXTS, truncate=True, side="right")
    assert batch.tokens == sum(len(text.split()) for text in TEXTS)
    with pytest.raises(DeadlineExceeded):
        await model.compute(batch, deadline=time.monotonic() - 1)

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(LinearPredictor, "states", fail)
    with pytest.raises(InferenceFailed, match="MemoryError"):
        await model.compute(batch, deadline=time.monotonic() + 60)


def test_score_that_is_not_finite_is_no_prediction(artifact: Path) -> None:
    model = LoadedLinearModel("words:1", LinearPredictor.load(artifact), None)  # type: ignore[arg-type]
    logits = np.full(len(model.predictor.labels), np.nan)
    with pytest.raises(NonFiniteScore, match="words:1"):
        model.decode([TextLogits(logits, queue_seconds=0.0, inference_seconds=0.0)], None)


def explain(client: TestClient, inputs: str | dict[str, str], **more: Any) -> Any:
    response = client.post("/v1/models/sentiment/explain", json={"inputs": inputs, **more})
    assert response.status_code == 200, response.text
    return response.json()


def test_explanation_is_exact_and_computes_one_text(
    client: TestClient, predictor: LinearPredictor
) -> None:
    text = "İs it good, or bad? GOOD film"
    result = explain(client, text, label="good")
    assert (result["texts"], result["grouped"]) == (1, False)
    predictions = dict(predictor.predict([text])[0])
    assert result["score"] == pytest.approx(predictions["good"])
    total = sum(word["score"] for word in result["words"])
    assert total == pytest.approx(result["score"] - result["empty_score"], abs=1e-9)
    scores = {word["text"]: word["score"] for word in result["words"]}
    assert min(scores["good"], scores["GOOD"]) > 0 > scores["bad"]
    assert all(text[w["start"] : w["end"]] == w["text"] for w in result["words"])
    top = explain(client, text)
    assert top["label"] == max(predictions, key=lambda label: predictions[label])
    response = client.post(
        "/v1/models/sentiment/explain", json={"inputs": text, "label": "unheard-of"}
    )
    assert response.json()["code"] == "label_unknown"


@pytest.mark.parametrize("limit", [2, 3])
def test_explanation_of_many_labels_is_computed_in_another_thread(
    limit: int,
    client: TestClient,
    predictor: LinearPredictor,
    record_threads: RecordThreads,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loaded_model, "_MAX_INLINE_EXPLAINED_LABELS", limit)
    threads = record_threads(LinearPredictor, "contributions")
    explain(client, TEXTS[0])
    assert [name.startswith("tokenize") for name in threads] == [limit < len(predictor.labels)]


def test_many_words_are_grouped_for_linear_models(
    client: TestClient,
    predictor: LinearPredictor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(explanation, "MAX_LINEAR_WORDS", 3)
    result = explain(client, "good film that was not bad")
    assert result["grouped"]
    assert [word["text"] for word in result["words"]] == ["good film", "that was", "not bad"]
    total = sum(word["score"] for word in result["words"])
    assert total == pytest.approx(result["score"] - result["empty_score"], abs=1e-9)


def test_words_of_each_text_of_a_pair_are_grouped_separately(
    client: TestClient, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(artifact=make_linear_artifact(tmp_path / "artifact", pairs=True))
    monkeypatch.setattr(explanation, "MAX_LINEAR_WORDS", 3)
    for text, grouped in (("this good film", False), ("this good film good", True)):
        result = explain(client, {"text": text, "text_pair": "that bad film"})
        assert (len(result["words"]), result["grouped"]) == (6, grouped)


def test_rejected_explanation_does_not_count_toward_rate_limit(
    app: FastAPI, client: TestClient, predictor: LinearPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving: InferenceService = app.state.serving
    serving.rate_limiter = KeyRateLimiter(1 / BURST_SECONDS, clock=lambda: 0.0)  # a burst of one

    def reserve(*_: object, **__: object) -> None:
        raise ServerOverloaded(waiting=1, retry_after=1)

    with monkeypatch.context() as patch:
        patch.setattr(serving.admission, "reserve", reserve)
        response = client.post("/v1/models/sentiment/explain", json={"inputs": TEXTS[0]})
    assert (response.status_code, response.json()["code"]) == (429, "overloaded")
    explain(client, TEXTS[0])


def test_encoder_can_shadow_a_linear_model(
    client: TestClient,
    predictor: LinearPredictor,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shadow, "CANDIDATES_TTL_SECONDS", 0.0)
    publish(promote=False)
    client.put("/v1/models/sentiment/aliases/shadow", json={"version": 2})

    def compared() -> Any:
        predict(client, TEXTS)
        pairs = client.get("/v1/models/sentiment/shadow").json()
        return pairs if pairs and pairs[0]["texts"] >= 4 else None

    [pair] = wait_until(compared)
    assert pair["failed"] == 0


def set_invalid_pattern(directory: Path) -> None:
    content = json.loads((directory / "linear.json").read_text())
    content["vectorizer"]["token_pattern"] = "(a+)+$"
    (directory / "linear.json").write_text(json.dumps(content))
    reseal(directory)


def reverse_terms(directory: Path) -> None:
    content = json.loads((directory / "linear.json").read_text())
    content["terms"].reverse()
    (directory / "linear.json").write_text(json.dumps(content))
    reseal(directory)


@pytest.mark.parametrize(
    ("corrupt", "imported", "code"),
    [
        (set_invalid_pattern, True, "model_refused"),
        (set_invalid_pattern, False, "model_unloadable"),  # not the fault of an import
        (reverse_terms, True, "model_output_mismatch"),
        (reverse_terms, False, "model_output_mismatch"),
    ],
)
def test_invalid_linear_model_is_not_served(
    client: TestClient, artifact: Path, publish: Publish, corrupt: Any, code: str, imported: bool
) -> None:
    publish(artifact=artifact, modify=corrupt, imported=imported)
    response = client.post("/predict", json={"inputs": "good"})
    assert (response.status_code, response.json()["code"]) == (424, code)


def test_linear_model_does_not_use_the_batcher(
    app: FastAPI,
    client: TestClient,
    predictor: LinearPredictor,
) -> None:
    predict(client, TEXTS)
    serving: InferenceService = app.state.serving
    assert serving.batcher.tokens_per_second is None  # the throughput of encoders
    [metric] = serving.metrics.loaded_bytes.collect()
    assert metric.samples[0].value > 0
