"""Tests of multi-label models and regressions over HTTP, against transformers."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch
from dirty_equals import IsPartialDict
from fastapi import FastAPI
from huggingface_hub import InferenceClient
from numpy.typing import NDArray
from scipy.special import expit, softmax
from starlette.testclient import TestClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from app.serving import shadow
from lora_core import manifest
from lora_core.inference.decoding import DecodedOutput
from tests.app.cli.conftest import serving
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import WAIT
from tests.tiny_artifact import (
    TEXTS,
    THRESHOLDS,
    TOPICS,
    make_multi_label_artifact,
    make_regression_artifact,
)

HALF_WIDTH = 0.5


@pytest.fixture
def topics(publish: Publish, tmp_path: Path) -> Path:
    """A multi-label model in production: `topics`."""
    return publish("topics", artifact=make_multi_label_artifact(tmp_path / "topics"))


@pytest.fixture
def stars(publish: Publish, tmp_path: Path) -> Path:
    """A regression in production: `stars`."""
    artifact = make_regression_artifact(tmp_path / "stars", half_width=HALF_WIDTH)
    return publish("stars", artifact=artifact)


def predict(client: TestClient, model: str, inputs: Any = TEXTS[0], **more: Any) -> Any:
    return client.post("/predict", json={"inputs": inputs, "model": model, **more})


def logits_by_transformers(artifact: Path) -> NDArray[np.float64]:
    """Return the logits (texts, outputs) of `TEXTS`."""
    merged = artifact / "merged"
    model = AutoModelForSequenceClassification.from_pretrained(merged)
    tokens = AutoTokenizer.from_pretrained(merged)(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        return np.array(model(**tokens).logits.tolist())


def calibrated(artifact: Path) -> NDArray[np.float64]:
    """Return the logits of `TEXTS`, calibrated as the manifest says."""
    calibration = manifest.read(artifact)["calibration"]
    scale, offset = np.array(calibration["scale"]), np.array(calibration["offset"])
    return np.asarray(scale * logits_by_transformers(artifact) + offset)


def test_labels_have_scores_and_say_whether_they_are_predicted(
    client: TestClient, topics: Path
) -> None:
    scores = expit(calibrated(topics))
    response = predict(client, "topics", list(TEXTS))
    assert response.status_code == 200, response.text
    for row, expected in zip(response.json(), scores.tolist(), strict=True):
        found = {each["label"]: each["score"] for each in row}
        assert found == pytest.approx(dict(zip(TOPICS, expected, strict=True)), abs=1e-6)
        assert list(found.values()) == sorted(found.values(), reverse=True)
        for each in row:
            assert each.keys() == {"label", "score", "predicted"}
            threshold = THRESHOLDS[TOPICS.index(each["label"])]
            assert each["predicted"] == (each["score"] >= threshold)
    # Thresholds differ, so a label may be predicted and a more probable one not.
    assert {each["predicted"] for row in response.json() for each in row} == {True, False}
    assert predict(client, "topics", top_k=1).json() == response.json()[0][:1]


@pytest.mark.parametrize(
    ("function", "scores"),
    [("none", lambda z: z), ("softmax", lambda z: softmax(z, axis=-1))],
)
def test_other_functions_of_a_multi_label_model(
    client: TestClient,
    topics: Path,
    function: str,
    scores: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> None:
    expected = scores(logits_by_transformers(topics))
    rows = predict(client, "topics", list(TEXTS), parameters={"function_to_apply": function})
    for row, of_text in zip(rows.json(), expected.tolist(), strict=True):
        found = {each["label"]: each["score"] for each in row}
        assert found == pytest.approx(dict(zip(TOPICS, of_text, strict=True)), abs=1e-5)
    usual = predict(client, "topics", list(TEXTS)).json()
    assert [predicted_labels(row) for row in rows.json()] == [predicted_labels(r) for r in usual]


def predicted_labels(row: Any) -> set[str]:
    return {each["label"] for each in row if each["predicted"]}


def test_regression_answers_with_a_number_and_its_interval(client: TestClient, stars: Path) -> None:
    response = predict(client, "stars", list(TEXTS))
    assert response.status_code == 200, response.text
    for [answer], [number] in zip(response.json(), calibrated(stars).tolist(), strict=True):
        assert answer == {
            "label": "value",
            "score": pytest.approx(number, abs=1e-5),
            "low": pytest.approx(number - HALF_WIDTH, abs=1e-5),
            "high": pytest.approx(number + HALF_WIDTH, abs=1e-5),
        }
    [single] = predict(client, "stars").json()
    assert single == response.json()[0][0]
    assert predict(client, "stars", raw_scores=True).json() == [single]
    assert predict(client, "stars", top_k=3).json() == [single]


def test_regression_without_an_interval(
    client: TestClient, publish: Publish, tmp_path: Path
) -> None:
    publish("stars", artifact=make_regression_artifact(tmp_path / "stars", half_width=None))
    [answer] = predict(client, "stars").json()
    assert answer.keys() == {"label", "score"}


@pytest.mark.parametrize(
    ("model", "body", "code", "named"),
    [
        ("topics", {"abstain_below": 0.9}, "abstention_not_applicable", "multi_label"),
        ("stars", {"abstain_below": 0.9}, "abstention_not_applicable", "regression"),
        *(
            (
                "stars",
                {"parameters": {"function_to_apply": function}},
                "score_function_not_applicable",
                function,
            )
            for function in ("softmax", "sigmoid")
        ),
    ],
)
def test_option_that_the_task_does_not_have(
    client: TestClient, topics: Path, stars: Path, model: str, body: Any, code: str, named: str
) -> None:
    response = predict(client, model, **body)
    assert response.status_code == 422
    assert response.json() == IsPartialDict(code=code, error_type="Validation")
    assert named in response.json()["error"]
    assert f"{model}:1" in response.json()["error"]


@pytest.mark.parametrize(
    ("path", "model", "body", "code"),
    [
        ("/rerank", "topics", {"query": "a", "texts": ["b"]}, "rerank_not_applicable"),
        ("/openai/v1/moderations", "stars", {"input": "a"}, "moderation_not_applicable"),
        (
            "/openai/v1/completions",
            "topics",
            {"prompt": "a", "logprobs": 1},
            "logprobs_not_applicable",
        ),
    ],
)
@pytest.mark.usefixtures("topics", "stars")
def test_model_of_another_task_computes_nothing(
    client: TestClient, path: str, model: str, body: dict[str, Any], code: str
) -> None:
    response = client.post(path, json=body | {"model": model})
    assert code in response.text, response.text
    metrics = client.get("/metrics").text
    assert 'te_request_failure{err="validation"} 1.0' in metrics
    assert "te_batch_next_size_count 0.0" in metrics


def test_instances_of_vertex_may_have_different_tasks(
    client: TestClient, topics: Path, stars: Path
) -> None:
    instances = [{"inputs": TEXTS[0], "model": name} for name in ("topics", "stars")]
    response = client.post("/vertex", json={"instances": instances})
    for found, name in zip(response.json()["predictions"], ("topics", "stars"), strict=True):
        alone = predict(client, name).json()
        assert found == [pytest.approx(each, abs=1e-6) for each in alone]  # in another batch


def test_info_names_the_task_and_the_thresholds(
    client: TestClient, publish: Publish, topics: Path, stars: Path
) -> None:
    publish()
    found = {
        name: client.get(f"/models/{name}/info").json() for name in ("topics", "stars", "sentiment")
    }
    assert [info["task"] for info in found.values()] == [
        "multi_label",
        "regression",
        "single_label",
    ]
    assert found["topics"]["thresholds"] == dict(zip(TOPICS, THRESHOLDS, strict=True))
    assert found["stars"]["thresholds"] == found["sentiment"]["thresholds"] == {}
    assert found["stars"]["model_type"]["classifier"]["id2label"] == {"0": "value"}


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    with serving(app) as address:
        yield address


def test_client_of_the_hub(url: str, topics: Path, stars: Path) -> None:
    hub = InferenceClient()
    for name in ("topics", "stars"):
        address = f"{url}/models/{name}/predict"
        answer = httpx2.post(address, json={"inputs": TEXTS[0]}, timeout=60).json()
        rows = hub.text_classification(TEXTS[0], model=address)
        assert [vars(row) for row in rows] == answer


@pytest.mark.parametrize(
    ("model", "label"), [("topics", None), ("topics", "music"), ("stars", None)]
)
def test_explanation_adds_up(
    client: TestClient, topics: Path, stars: Path, model: str, label: str | None
) -> None:
    body = {"inputs": TEXTS[0], **({"label": label} if label else {})}
    response = client.post(f"/v1/models/{model}/explain", json=body)
    assert response.status_code == 200, response.text
    explanation, answer = response.json(), predict(client, model).json()
    assert explanation["label"] == (label or answer[0]["label"])
    scores = {each["label"]: each["score"] for each in answer}
    assert explanation["score"] == pytest.approx(scores[explanation["label"]], abs=1e-6)
    total = sum(word["score"] for word in explanation["words"])
    assert total == pytest.approx(explanation["score"] - explanation["empty_score"], abs=1e-5)
    assert [word["text"] for word in explanation["words"]] == TEXTS[0].split()


def outputs(*scores: float, predicted: str = "") -> list[DecodedOutput]:
    return [
        DecodedOutput(name, score, name in predicted)
        for name, score in zip("ab", scores, strict=True)
    ]


def number(value: float, half_width: float | None = None) -> list[DecodedOutput]:
    if half_width is None:
        return [DecodedOutput("value", value)]
    return [DecodedOutput("value", value, None, value - half_width, value + half_width)]


@pytest.mark.parametrize(
    ("task", "served", "candidate", "agreed", "difference"),
    [
        pytest.param(*case, id=str(position))
        for position, case in enumerate(
            [
                ("multi_label", outputs(0.9, 0.5, predicted="a"),
                 outputs(0.8, 0.1, predicted="a"), True, 0.25),
                ("multi_label", outputs(0.9, 0.5, predicted="a"),
                 outputs(0.9, 0.5, predicted="ab"), False, 0.0),
                ("regression", number(3.0, 0.5), number(3.4, 0.1), True, 0.4),
                ("regression", number(3.0, 0.5), number(3.6), False, 0.6),
                ("regression", number(3.0), number(3.1, 0.5), False, 0.1),
                ("single_label", [DecodedOutput("a", 0.75), DecodedOutput("b", 0.25)],
                 [DecodedOutput("b", 0.75), DecodedOutput("a", 0.25)], False, 0.5),
            ]
        )
    ],
)  # fmt: skip
def test_agreement_of_a_shadow(
    task: Any,
    served: list[DecodedOutput],
    candidate: list[DecodedOutput],
    agreed: bool,
    difference: float,
) -> None:
    found = shadow.compare_shadow_outputs(task, served, candidate)
    assert found[0] is agreed
    assert found[1] == pytest.approx(difference)


def test_shadow_of_a_regression(
    client: TestClient,
    publish: Publish,
    stars: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shadow, "CANDIDATES_TTL_SECONDS", 0.0)
    candidate = make_regression_artifact(tmp_path / "candidate", seed=1)
    publish("stars", artifact=candidate, promote=False)
    client.put("/v1/models/stars/aliases/shadow", json={"version": 2})
    deadline = time.monotonic() + WAIT
    while not (pairs := client.get("/v1/models/stars/shadow").json()) or not pairs[0]["texts"]:
        assert time.monotonic() < deadline
        predict(client, "stars")
    [served], [other] = predict(client, "stars").json(), predict(client, "stars:2").json()
    difference = abs(served["score"] - other["score"])
    assert pairs[0]["mean_difference"] == pytest.approx(difference, abs=1e-6)
    assert pairs[0]["agreement"] == (1.0 if difference <= HALF_WIDTH else 0.0)
