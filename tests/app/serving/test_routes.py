"""`POST /predict` over HTTP, with real models of two layers."""

import json
import time
from typing import Any

import pytest
import torch
from dirty_equals import IsFloat, IsPartialDict
from fastapi import FastAPI
from starlette.testclient import TestClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from app.main import create_app
from app.settings import Settings
from tests.app.serving.conftest import Publish

LONG = "film " * 100


def ask(client: TestClient, inputs: Any = "a good film", **more: Any) -> Any:
    return client.post("/predict", json={"inputs": inputs, **more})


def best(answer: Any) -> str:
    label: str = answer.json()[0]["label"]
    return label


def test_one_text_gets_every_label_highest_first(client: TestClient, publish: Publish) -> None:
    publish()
    answer = ask(client)
    assert answer.status_code == 200, answer.text
    assert answer.json() == [
        {"label": "good", "score": IsFloat(gt=0.5, lt=1)},
        {"label": "bad", "score": IsFloat(gt=0, lt=0.5)},
    ]
    assert sum(row["score"] for row in answer.json()) == pytest.approx(1)
    assert answer.headers["x-model-version"] == "sentiment:1"
    assert "x-truncated" not in answer.headers


def test_a_list_gets_a_list(client: TestClient, publish: Publish) -> None:
    publish()
    texts = ["a good film", "a dull plot"]
    together = ask(client, texts).json()
    for row, text in zip(together, texts, strict=True):
        for found, alone in zip(row, ask(client, text).json(), strict=True):
            assert found == {"label": alone["label"], "score": pytest.approx(alone["score"])}
    assert len(ask(client, texts[:1]).json()) == 1


def test_scores_are_those_of_plain_transformers(client: TestClient, publish: Publish) -> None:
    merged = publish() / "merged"
    texts = ["a good film", "the plot was not very fine"]
    model = AutoModelForSequenceClassification.from_pretrained(merged)
    tokens = AutoTokenizer.from_pretrained(merged)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**tokens).logits.softmax(-1)
    for row, scores in zip(ask(client, texts).json(), expected, strict=True):
        by_label = {entry["label"]: entry["score"] for entry in row}
        for index, label in model.config.id2label.items():
            assert by_label[label] == pytest.approx(scores[index].item(), abs=1e-6)


def test_the_answer_says_what_it_took(client: TestClient, publish: Publish) -> None:
    publish()
    headers = ask(client, ["a good film", "fine"]).headers
    assert headers["x-compute-characters"] == "15"
    assert headers["x-compute-tokens"] == "8"  # with [CLS] and [SEP]
    parts = [int(headers[f"x-{part}-time"]) for part in ("queue", "tokenization", "inference")]
    assert all(part >= 0 for part in parts)
    assert int(headers["x-total-time"]) + len(parts) >= sum(parts)  # each is rounded


def test_long_texts_are_cut_and_counted(client: TestClient, publish: Publish) -> None:
    publish()
    answer = ask(client, ["good", LONG, LONG])
    assert (answer.status_code, answer.headers["x-truncated"]) == (200, "2")
    refused = ask(client, ["good", LONG], truncate=False)
    assert refused.status_code == 422
    assert refused.json() == IsPartialDict(error_type="Validation", code="text_too_long")
    assert "Input 1 has 102 tokens" in refused.json()["error"]
    assert ask(client, "good", truncate=False).status_code == 200


def test_a_model_is_chosen_by_reference(client: TestClient, publish: Publish) -> None:
    publish()
    publish(favours="bad", promote=False)
    client.put("/v1/models/sentiment/aliases/staging", json={"version": 2})
    for ref, version, label in (
        ("sentiment", 1, "good"),
        ("sentiment@production", 1, "good"),
        ("sentiment:2", 2, "bad"),
        ("sentiment@staging", 2, "bad"),
    ):
        for answer in (
            ask(client, model=ref),
            client.post(f"/models/{ref}/predict", json={"inputs": "a good film"}),
        ):
            assert answer.headers["x-model-version"] == f"sentiment:{version}"
            assert best(answer) == label


def test_a_moved_alias_is_seen_within_a_second(client: TestClient, publish: Publish) -> None:
    publish()
    publish(favours="bad", promote=False)
    assert best(ask(client)) == "good"
    ask(client, model="sentiment:2")  # loaded already: only the alias is new
    client.put("/v1/models/sentiment/aliases/production", json={"version": 2})
    moved = time.monotonic()
    while (answer := ask(client)).headers["x-model-version"] == "sentiment:1":
        assert time.monotonic() - moved < 1
        time.sleep(0.02)
    assert best(answer) == "bad"


def test_without_a_promoted_model_there_is_no_answer(client: TestClient, publish: Publish) -> None:
    def refusal() -> tuple[int, str]:
        answer = ask(client)
        return answer.status_code, answer.json()["code"]

    assert refusal() == (404, "no_model_promoted")
    publish(promote=False)
    assert refusal() == (404, "no_model_promoted")


def test_two_promoted_models_are_named(client: TestClient, publish: Publish) -> None:
    publish("sentiment")
    publish("topics")
    answer = ask(client)
    assert (answer.status_code, answer.json()["code"]) == (422, "model_ambiguous")
    assert "sentiment, topics" in answer.json()["error"]
    assert ask(client, model="topics").headers["x-model-version"] == "topics:1"


def test_a_model_that_is_not_there_is_not_found(client: TestClient, publish: Publish) -> None:
    publish()
    for ref in ("other", "sentiment:2", "sentiment@staging"):
        for answer in (
            ask(client, model=ref),
            client.post(f"/models/{ref}/predict", json={"inputs": "x"}),
        ):
            assert answer.status_code == 404
            assert answer.json() == IsPartialDict(code="model_not_found", error_type="NotFound")
            assert ref in answer.json()["error"]
    assert ask(client, model="Not a model").json()["code"] == "invalid_model_ref"


def test_an_empty_input_is_refused(client: TestClient, publish: Publish) -> None:
    publish()
    for inputs in ("", " ", "\n\t", [], ["good", ""]):
        answer = ask(client, inputs)
        assert answer.status_code == 400, inputs
        assert answer.json() == IsPartialDict(error_type="Empty", code="empty_input")
    assert "Input 1" in ask(client, ["good", ""]).json()["error"]


def test_a_body_that_does_not_fit_is_refused(client: TestClient, publish: Publish) -> None:
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
        answer = client.post("/predict", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422, body
        assert set(answer.json()) >= {"error", "error_type", "code"}
        assert answer.json()["error_type"] == "Validation"
    assert "at most 64" in answer.json()["error"]


def test_a_body_that_is_no_json_is_refused(client: TestClient) -> None:
    for content in ("", "{", "inputs=a", '{"inputs": "a"', "\xff"):
        answer = client.post(
            "/predict", content=content, headers={"content-type": "application/json"}
        )
        assert answer.status_code in (400, 422), content
        assert set(answer.json()) >= {"error", "error_type", "code"}


def test_a_text_reaches_the_model_as_it_was_sent(client: TestClient, publish: Publish) -> None:
    publish()
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    sizes = [ask(client, text).headers["x-compute-characters"] for text in (composed, decomposed)]
    assert sizes == ["4", "5"]


@pytest.mark.parametrize("harm", ["change", "forge", "lose"])
def test_a_damaged_model_is_not_asked_and_not_remembered(
    client: TestClient, publish: Publish, harm: str
) -> None:
    directory = publish()
    weights, listed = directory / "merged" / "model.safetensors", directory / "manifest.json"
    hidden = directory.with_name("hidden")
    whole = {path: path.read_bytes() for path in (weights, listed)}
    match harm:
        case "change":
            weights.write_bytes(whole[weights][:-4] + b"\x7f\x7f\x7f\x7f")
        case "forge":
            listed.write_bytes(whole[listed].replace(b"0.8", b"0.9"))
        case "lose":
            directory.rename(hidden)
    for _ in range(2):
        answer = ask(client)
        assert answer.status_code == 424
        assert answer.json() == IsPartialDict(error_type="Backend", code="artifact_corrupt")
        assert "sentiment:1" in answer.json()["error"]
        assert str(directory.parent) not in answer.text
    if harm == "lose":
        hidden.rename(directory)
    for path, content in whole.items():
        path.write_bytes(content)
    assert ask(client).status_code == 200


class TestFewInputs:
    """At most two texts in one call."""

    @pytest.fixture
    def app(self, settings: Settings) -> FastAPI:
        return create_app(settings.model_copy(update={"max_inputs": 2}))

    def test_more_inputs_than_allowed_are_refused(
        self, client: TestClient, publish: Publish
    ) -> None:
        publish()
        assert ask(client, ["a", "b"]).status_code == 200
        answer = ask(client, ["a", "b", "c"])
        assert (answer.status_code, answer.json()["code"]) == (422, "too_many_inputs")
