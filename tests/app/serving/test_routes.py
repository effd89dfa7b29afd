"""Tests of `POST /predict` over HTTP, with real models of two layers."""

import json
import re
import time
from typing import Any

import pytest
import torch
from dirty_equals import IsFloat, IsPartialDict, IsStr
from fastapi import FastAPI
from sqlalchemy import text as sql
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from app.database.engines import Database
from app.main import create_app
from app.serving import loaded_model, routes
from app.serving.loaded_model import LoadedEncoderModel
from app.settings import Settings
from lora_core.inference.tokenization import ModelTokenizer
from tests.app.serving.conftest import Publish, RecordThreads
from tests.app.serving.stub import StubPredictor

LONG = "film " * 100


def predict(client: TestClient, inputs: Any = "a good film", **more: Any) -> Any:
    return client.post("/predict", json={"inputs": inputs, **more})


def top_label(response: Any) -> str:
    label: str = response.json()[0]["label"]
    return label


def test_one_text_gets_all_labels_highest_first(client: TestClient, publish: Publish) -> None:
    publish()
    response = predict(client)
    assert response.status_code == 200, response.text
    assert response.json() == [
        {"label": "good", "score": IsFloat(gt=0.5, lt=1)},
        {"label": "bad", "score": IsFloat(gt=0, lt=0.5)},
    ]
    assert sum(row["score"] for row in response.json()) == pytest.approx(1)
    assert response.headers["x-model-version"] == "sentiment:1"
    assert "x-truncated" not in response.headers


def test_list_gets_a_list(client: TestClient, publish: Publish) -> None:
    publish()
    texts = ["a good film", "a dull plot"]
    together = predict(client, texts).json()
    for row, text in zip(together, texts, strict=True):
        for batched, single in zip(row, predict(client, text).json(), strict=True):
            assert batched == {"label": single["label"], "score": pytest.approx(single["score"])}
    assert len(predict(client, texts[:1]).json()) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"inputs": "a good film"}),
        ("/models/sentiment/predict", {"inputs": ["a good film"]}),
        ("/vertex", {"instances": [{"inputs": "a good film"}]}),
        ("/mistral/v1/classifications", {"model": "sentiment", "input": "a good film"}),
    ],
)
def test_only_many_outputs_are_computed_and_written_in_another_thread(
    client: TestClient,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
    record_threads: RecordThreads,
    path: str,
    body: Any,
) -> None:
    publish()
    decoded = record_threads(LoadedEncoderModel, "decode")
    written = record_threads(JSONResponse, "render")
    responses = []
    for limit in (2, 1):
        for module in (loaded_model, routes):
            monkeypatch.setattr(module, "MAX_INLINE_OUTPUTS", limit)
        response = client.post(path, json=body)
        responses.append(re.sub("mod-[0-9a-f]+", "", response.text))
    for threads in (decoded, written):
        assert [name.startswith("tokenize") for name in threads] == [False, True]
    assert response.status_code == 200
    assert responses[0] == responses[1]


def test_scores_match_transformers(client: TestClient, publish: Publish) -> None:
    merged = publish() / "merged"
    texts = ["a good film", "the plot was not very fine"]
    model = AutoModelForSequenceClassification.from_pretrained(merged)
    tokens = AutoTokenizer.from_pretrained(merged)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**tokens).logits.softmax(-1)
    for row, scores in zip(predict(client, texts).json(), expected, strict=True):
        by_label = {entry["label"]: entry["score"] for entry in row}
        for index, label in model.config.id2label.items():
            assert by_label[label] == pytest.approx(scores[index].item(), abs=1e-6)


def test_response_headers_have_timings(client: TestClient, publish: Publish) -> None:
    publish()
    headers = predict(client, ["a good film", "fine"]).headers
    assert headers["x-compute-characters"] == "15"
    assert headers["x-compute-tokens"] == "8"  # with [CLS] and [SEP]
    parts = [int(headers[f"x-{part}-time"]) for part in ("queue", "tokenization", "inference")]
    assert all(part >= 0 for part in parts)
    assert int(headers["x-total-time"]) + len(parts) >= sum(parts)  # each is rounded


def test_long_texts_are_truncated_and_counted(client: TestClient, publish: Publish) -> None:
    publish()
    response = predict(client, ["good", LONG, LONG])
    assert (response.status_code, response.headers["x-truncated"]) == (200, "2")
    rejected = predict(client, ["good", LONG], truncate=False)
    assert rejected.status_code == 422
    assert rejected.json() == IsPartialDict(error_type="Validation", code="text_too_long")
    assert "Input 1 has 102 tokens" in rejected.json()["error"]
    assert predict(client, "good", truncate=False).status_code == 200


def test_model_is_chosen_by_reference(client: TestClient, publish: Publish) -> None:
    publish()
    publish(top_label="bad", promote=False)
    client.put("/v1/models/sentiment/aliases/staging", json={"version": 2})
    for ref, version, label in (
        ("sentiment", 1, "good"),
        ("sentiment@production", 1, "good"),
        ("sentiment:2", 2, "bad"),
        ("sentiment@staging", 2, "bad"),
    ):
        for response in (
            predict(client, model=ref),
            client.post(f"/models/{ref}/predict", json={"inputs": "a good film"}),
        ):
            assert response.headers["x-model-version"] == f"sentiment:{version}"
            assert top_label(response) == label


def test_moved_alias_takes_effect_within_a_second(client: TestClient, publish: Publish) -> None:
    publish()
    publish(top_label="bad", promote=False)
    assert top_label(predict(client)) == "good"
    predict(client, model="sentiment:2")  # load it: only the alias is new
    client.put("/v1/models/sentiment/aliases/production", json={"version": 2})
    moved = time.monotonic()
    while (response := predict(client)).headers["x-model-version"] == "sentiment:1":
        assert time.monotonic() - moved < 1
        time.sleep(0.02)
    assert top_label(response) == "bad"


def test_no_promoted_model(client: TestClient, publish: Publish) -> None:
    def error_of() -> tuple[int, str]:
        response = predict(client)
        return response.status_code, response.json()["code"]

    assert error_of() == (404, "no_model_promoted")
    publish(promote=False)
    assert error_of() == (404, "no_model_promoted")


def test_two_promoted_models_are_ambiguous(client: TestClient, publish: Publish) -> None:
    publish("sentiment")
    publish("topics")
    response = predict(client)
    assert (response.status_code, response.json()["code"]) == (422, "model_ambiguous")
    assert "sentiment, topics" in response.json()["error"]
    assert predict(client, model="topics").headers["x-model-version"] == "topics:1"


def test_unknown_model_is_not_found(client: TestClient, publish: Publish) -> None:
    publish()
    for ref in ("other", "sentiment:2", "sentiment@staging"):
        for response in (
            predict(client, model=ref),
            client.post(f"/models/{ref}/predict", json={"inputs": "x"}),
        ):
            assert response.status_code == 404
            assert response.json() == IsPartialDict(code="model_not_found", error_type="NotFound")
            assert ref in response.json()["error"]
    assert predict(client, model="Not a model").json()["code"] == "invalid_model_ref"


def test_input_without_tokens_is_not_called_empty(
    app: FastAPI, client: TestClient, publish: Publish
) -> None:
    publish()
    stub = StubPredictor()
    tokenizer = ModelTokenizer(Tokenizer(BPE({"g": 0}, [])), 64)
    stub.encode = tokenizer.encode  # type: ignore[assignment, method-assign]
    app.state.serving.pool._load_encoder = lambda *_, **__: stub
    response = predict(client, ["g", "dull"])
    assert response.status_code == 422
    assert response.json() == IsPartialDict(
        error=IsStr(regex="Input 1 has no tokens.*"), code="input_without_tokens"
    )
    assert 'te_request_failure{err="validation"} 1.0' in client.get("/metrics").text


def test_failure_of_the_database_is_counted(
    client: TestClient, database: Database, publish: Publish
) -> None:
    publish()
    with database.write() as session:
        session.execute(sql("ALTER TABLE model_versions RENAME TO gone"))
    assert predict(client).status_code == 500
    metrics = client.get("/metrics").text
    assert 'te_request_count{method="single"} 1.0' in metrics
    assert 'te_request_failure{err="inference"} 1.0' in metrics


def test_empty_input_is_rejected(client: TestClient, publish: Publish) -> None:
    publish()
    for inputs in ("", " ", "\n\t", [], ["good", ""]):
        response = predict(client, inputs)
        assert response.status_code == 400, inputs
        assert response.json() == IsPartialDict(error_type="Empty", code="empty_input")
    assert "Input 1" in predict(client, ["good", ""]).json()["error"]


def test_invalid_body_is_rejected(client: TestClient, publish: Publish) -> None:
    publish()
    for body in (
        '{"inputs": 1}',
        '{"inputs": null}',
        '{"inputs": {"a": "b"}}',
        '{"inputs": ["a", 1]}',
        '{"inputs": [["a", "b"]]}',
        '{"inputs": NaN}',
        '{"inputs": ["a", 1e999]}',
        '{"inputs": "a\\u0000b"}',
        '{"inputs": ["a", "b\\ud800"]}',
        '{"inputs": "a", "truncate": "yes"}',
        '{"inputs": [["a"], []]}',
        '{"inputs": "a", "top_k": 0}',
        '{"inputs": "a", "top_k": true}',
        '{"inputs": "a", "abstain_below": 1.5}',
        '{"inputs": "a", "abstain_below": NaN}',
        '{"inputs": "a", "truncation_direction": "up"}',
        '{"inputs": "a", "truncation_direction": "LEFT"}',
        '{"inputs": "a", "truncation_direction": ["Left"]}',
        '{"inputs": "a", "truncation_direction": null}',
        '{"inputs": "a", "parameters": []}',
        '{"inputs": "a", "parameters": {"function_to_apply": "tanh"}}',
        '{"inputs": "a", "raw_scores": true, "parameters": {"function_to_apply": "none"}}',
        '{"inputs": "a", "model": 3}',
        '{"inputs": "a", "model": "\\ud800"}',
        '{"text": "a"}',
        "{}",
        "[]",
        '"a"',
        json.dumps({"inputs": ["a"] * 65}),
    ):
        response = client.post(
            "/predict", content=body, headers={"content-type": "application/json"}
        )
        assert response.status_code == 422, body
        assert set(response.json()) >= {"error", "error_type", "code"}
        assert response.json()["error_type"] == "Validation"
    assert "at most 64" in response.json()["error"]


def test_malformed_json_is_rejected(client: TestClient) -> None:
    for content in ("", "{", "inputs=a", '{"inputs": "a"', "\xff"):
        response = client.post(
            "/predict", content=content, headers={"content-type": "application/json"}
        )
        assert response.status_code in (400, 422), content
        assert set(response.json()) >= {"error", "error_type", "code"}


def test_text_reaches_the_model_unchanged(client: TestClient, publish: Publish) -> None:
    publish()
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    sizes = [
        predict(client, text).headers["x-compute-characters"] for text in (composed, decomposed)
    ]
    assert sizes == ["4", "5"]


@pytest.mark.parametrize("damage", ["change", "forge", "lose"])
def test_corrupt_model_is_not_used_and_not_cached(
    client: TestClient, publish: Publish, damage: str
) -> None:
    directory = publish()
    weights, listed = directory / "merged" / "model.safetensors", directory / "manifest.json"
    hidden = directory.with_name("hidden")
    original = {path: path.read_bytes() for path in (weights, listed)}
    match damage:
        case "change":
            weights.write_bytes(original[weights][:-4] + b"\x7f\x7f\x7f\x7f")
        case "forge":
            listed.write_bytes(original[listed].replace(b"0.8", b"0.9"))
        case "lose":
            directory.rename(hidden)
    for _ in range(2):
        response = predict(client)
        assert response.status_code == 424
        assert response.json() == IsPartialDict(error_type="Backend", code="artifact_corrupt")
        assert "sentiment:1" in response.json()["error"]
        assert str(directory.parent) not in response.text
    if damage == "lose":
        hidden.rename(directory)
    for path, content in original.items():
        path.write_bytes(content)
    assert predict(client).status_code == 200


class TestFewInputs:
    """With at most two texts per request."""

    @pytest.fixture
    def app(self, settings: Settings) -> FastAPI:
        return create_app(settings.model_copy(update={"max_inputs": 2}))

    def test_too_many_inputs_are_rejected(self, client: TestClient, publish: Publish) -> None:
        publish()
        assert predict(client, ["a", "b"]).status_code == 200
        response = predict(client, ["a", "b", "c"])
        assert (response.status_code, response.json()["code"]) == (422, "too_many_inputs")
