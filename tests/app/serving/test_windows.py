"""Predictions and explanations of a model that reads long texts in windows."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lora_core.inference.predictor import Predictor
from tests.app.serving.conftest import Publish
from tests.tiny_artifact import make_artifact

SHORT, LONG = "a good film", "the plot was dull and the cast was fine " * 4


@pytest.fixture
def predictor(publish: Publish, tmp_path: Path) -> Predictor:
    """Publish a model that reads windows of 16 tokens."""
    artifact = make_artifact(tmp_path / "windows", windows=True, max_length=16)
    return Predictor.load(publish(artifact=artifact))


def test_scores_are_those_of_the_averaged_logits(client: TestClient, predictor: Predictor) -> None:
    response = client.post("/predict", json={"inputs": [SHORT, LONG, SHORT], "raw_scores": True})
    items = predictor.encode([SHORT, LONG, SHORT])
    assert [len(item.windows) for item in items] == [1, 3, 1]
    for row, logits in zip(response.json(), predictor.forward(items).tolist(), strict=True):
        scores = {each["label"]: each["score"] for each in row}
        assert scores == pytest.approx(dict(zip(predictor.labels, logits, strict=True)), abs=2e-2)
    assert "X-Truncated" not in response.headers
    assert response.headers["x-compute-tokens"] == str(sum(item.length for item in items))


def test_explanation_covers_all_windows(client: TestClient, predictor: Predictor) -> None:
    response = client.post("/v1/models/sentiment/explain", json={"inputs": LONG})
    explanation = response.json()
    assert explanation["words"][-1]["end"] == len(LONG.strip())
    [[(label, score), _]] = predictor.predict([LONG])
    assert (explanation["label"], explanation["score"]) == (
        label,
        pytest.approx(score, abs=1e-2),
    )
    total = sum(word["score"] for word in explanation["words"])
    assert explanation["empty_score"] + total == pytest.approx(explanation["score"], abs=1e-4)


def test_info_has_the_length_that_all_windows_read(
    client: TestClient, predictor: Predictor
) -> None:
    del predictor
    longest = client.get("/models/sentiment/info").json()["max_input_length"]
    words = longest - 2  # with the special tokens
    for count, truncated in ((words, False), (words + 1, True)):
        response = client.post("/predict", json={"inputs": "film " * count})
        assert ("X-Truncated" in response.headers) is truncated
