"""`POST /rerank` in the format of text-embeddings-inference, against transformers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.special import expit
from starlette.testclient import TestClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from app.settings import Settings
from tests.app.serving.conftest import Publish
from tests.tiny_artifact import make_artifact, make_regression_artifact

QUERY = "a good film"
PASSAGES = ["the plot was dull", "the story was fine", "good", "awful " * 60]


@pytest.fixture
def relevance(publish: Publish, tmp_path: Path) -> Path:
    """A regression of text pairs in production: `relevance`."""
    return publish("relevance", artifact=make_regression_artifact(tmp_path / "made", pairs=True))


def numbers(artifact: Path) -> list[float]:
    """Return the number of each of `PASSAGES` by transformers."""
    merged = artifact / "merged"
    model = AutoModelForSequenceClassification.from_pretrained(merged)
    tokens = AutoTokenizer.from_pretrained(merged)(
        [QUERY] * len(PASSAGES), PASSAGES, padding=True, truncation=True, max_length=64,
        return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        logits = model(**tokens).logits[:, 0]
    return [3.0 + 2.0 * logit for logit in logits.tolist()]


def test_texts_are_ranked_by_their_numbers(client: TestClient, relevance: Path) -> None:
    expected = numbers(relevance)
    order = sorted(range(len(PASSAGES)), key=lambda index: -expected[index])
    body = {"query": QUERY, "texts": PASSAGES}
    response = client.post("/rerank", json=body)
    assert response.status_code == 200, response.text
    assert response.json() == [
        {"index": index, "score": pytest.approx(expit(expected[index]), abs=1e-5)}
        for index in order
    ]
    assert response.headers["x-model-version"] == "relevance:1"
    assert response.headers["x-truncated"] == "1"
    raw = client.post("/models/relevance/rerank", json=body | {"raw_scores": True}).json()
    assert raw == [
        {"index": index, "score": pytest.approx(expected[index], abs=1e-5)} for index in order
    ]
    texts = client.post("/rerank", json=body | {"return_text": True, "model": "relevance:1"}).json()
    assert [each["text"] for each in texts] == [PASSAGES[index] for index in order]


def test_scores_are_those_of_predict(client: TestClient, relevance: Path) -> None:
    body = {"query": QUERY, "texts": PASSAGES[:2], "raw_scores": True}
    by_index = {each["index"]: each["score"] for each in client.post("/rerank", json=body).json()}
    pairs = [[QUERY, passage] for passage in PASSAGES[:2]]
    predicted = client.post("/predict", json={"inputs": pairs}).json()
    assert [by_index[index] for index in range(2)] == pytest.approx(
        [row[0]["score"] for row in predicted], abs=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"query": " "}, 400, "empty_input"),
        ({"texts": ["good", ""]}, 400, "empty_input"),
        ({"texts": []}, 422, "validation_failed"),
        ({"texts": "good"}, 422, "validation_failed"),
        ({"texts": [["good"]]}, 422, "validation_failed"),
        ({"query": None}, 422, "validation_failed"),
        ({"query": "a\0b"}, 422, "validation_failed"),
        ({"texts": ["awful " * 60], "truncate": False}, 422, "text_too_long"),
        ({"model": "other"}, 404, "model_not_found"),
    ],
)
@pytest.mark.usefixtures("relevance")
def test_invalid_request(client: TestClient, changes: Any, status: int, code: str) -> None:
    sent = json.dumps({"query": QUERY, "texts": PASSAGES, "model": "relevance", **changes})
    response = client.post("/rerank", content=sent, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert "error_type" in response.json()


@pytest.mark.usefixtures("relevance")
def test_too_many_texts(client: TestClient, settings: Settings) -> None:
    texts = ["good"] * (settings.max_inputs + 1)
    response = client.post("/rerank", json={"query": QUERY, "texts": texts})
    assert (response.status_code, response.json()["code"]) == (422, "too_many_inputs")


def test_other_models_do_not_rank(client: TestClient, publish: Publish, tmp_path: Path) -> None:
    body = {"query": QUERY, "texts": PASSAGES}
    publish("stars", artifact=make_regression_artifact(tmp_path / "stars"))
    response = client.post("/models/stars/rerank", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "pair_refused")
    publish("same", artifact=make_artifact(tmp_path / "same", pairs=True))
    response = client.post("/models/same/rerank", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "rerank_not_applicable")
    assert "same:1 is a single_label model" in response.json()["error"]
