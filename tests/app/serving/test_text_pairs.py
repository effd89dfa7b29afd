"""Predictions and explanations of text pairs, in the formats of all clients."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from huggingface_hub import InferenceClient
from starlette.testclient import TestClient

from lora_core.inference.predictor import Predictor
from tests.app.cli.conftest import serving
from tests.app.serving.conftest import Publish
from tests.tiny_artifact import PAIRS, make_artifact

FIRST, OTHER = PAIRS[0], PAIRS[1]
FIELDS = [{"text": text, "text_pair": pair} for text, pair in (FIRST, OTHER)]
Expected = Callable[..., Any]


@pytest.fixture
def expected(publish: Publish, tmp_path: Path) -> Expected:
    """Publish a model of pairs; return the scores that it predicts for a pair."""
    directory = publish(artifact=make_artifact(tmp_path / "pairs", pairs=True))
    predictor = Predictor.load(directory)

    def scores(pair: tuple[str, str]) -> Any:
        [labels] = predictor.predict([pair])
        return [{"label": name, "score": pytest.approx(score, abs=1e-3)} for name, score in labels]

    return scores


def test_pairs_in_every_format(client: TestClient, expected: Expected) -> None:
    one, other = expected(FIRST), expected(OTHER)
    for inputs, predicted in (
        (FIELDS[0], one),
        (list(FIRST), one),  # text-embeddings-inference: two texts are one pair
        ([list(FIRST)], [one]),
        ([list(FIRST), list(OTHER)], [one, other]),
        (FIELDS, [one, other]),
        ([FIELDS[0], list(OTHER)], [one, other]),
    ):
        response = client.post("/predict", json={"inputs": inputs})
        assert (response.status_code, response.json()) == (200, predicted)
    hub = client.post("/predict", json={"inputs": FIELDS[0], "parameters": {"top_k": 1}})
    assert hub.json() == [one[:1]]
    vertex = client.post("/vertex", json={"instances": [{"inputs": FIELDS[0]}]})
    assert vertex.json() == {"predictions": [one]}
    assert client.get("/info").json()["text_pairs"] is True


@pytest.mark.parametrize(
    ("inputs", "status", "code"),
    [
        (FIRST[0], 422, "text_pair_required"),
        ([*FIRST, OTHER[0]], 422, "text_pair_required"),
        ({"text": FIRST[0]}, 422, "text_pair_required"),
        ([[*FIRST, OTHER[0]]], 422, "invalid_pair"),
        ([[]], 422, "invalid_pair"),
        ({"text": FIRST[0], "text_pair": " "}, 400, "empty_input"),
        ({"text": FIRST[0], "text_pair": 1}, 422, "validation_failed"),
        ({"text": FIRST[0], "other": "b"}, 422, "validation_failed"),
        ({"text_pair": "b"}, 422, "validation_failed"),
    ],
)
@pytest.mark.usefixtures("expected")
def test_input_that_is_no_pair_is_rejected(
    client: TestClient, inputs: Any, status: int, code: str
) -> None:
    response = client.post("/predict", json={"inputs": inputs})
    assert (response.status_code, response.json()["code"]) == (status, code), response.text


def test_two_texts_in_the_format_of_the_hub_are_no_pair(
    client: TestClient, expected: Expected
) -> None:
    assert expected(FIRST)
    response = client.post("/predict", json={"inputs": list(FIRST), "parameters": {}})
    assert response.json()["code"] == "text_pair_required"


def test_model_of_single_texts_rejects_pairs(client: TestClient, publish: Publish) -> None:
    publish()
    for inputs in (FIELDS[0], [list(FIRST)]):
        response = client.post("/predict", json={"inputs": inputs})
        assert (response.status_code, response.json()["code"]) == (422, "pair_refused")
        assert response.json()["error_type"] == "Validation"
    assert len(client.post("/predict", json={"inputs": list(FIRST)}).json()) == 2
    assert client.post("/predict", json={"inputs": {"text": FIRST[0]}}).status_code == 200
    assert client.get("/info").json()["text_pairs"] is False


def test_explanation_names_the_text_of_each_word(client: TestClient, expected: Expected) -> None:
    assert expected(FIRST)
    path = "/v1/models/sentiment/explain"
    explanation = client.post(path, json={"inputs": FIELDS[0]}).json()
    words = [(word["field"], word["text"]) for word in explanation["words"]]
    assert words == [
        *(("text", word) for word in FIRST[0].split()),
        *(("text_pair", word) for word in FIRST[1].split()),
    ]
    total = sum(word["score"] for word in explanation["words"])
    assert explanation["empty_score"] + total == pytest.approx(explanation["score"], abs=1e-5)
    single = client.post(path, json={"inputs": FIRST[0]})
    assert (single.status_code, single.json()["code"]) == (422, "text_pair_required")


@pytest.fixture
def url(app: FastAPI, expected: Expected) -> Iterator[str]:
    assert expected(FIRST)
    with serving(app) as address:
        yield address


def test_hub_client(url: str) -> None:
    rows = InferenceClient().text_classification(FIELDS[0], model=f"{url}/predict")  # type: ignore[arg-type]
    assert [row.label for row in rows] == ["good", "bad"]
