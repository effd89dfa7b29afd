"""Tests of the request and response formats of text-embeddings-inference and the hub."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi import FastAPI
from starlette.testclient import TestClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from app.registry.errors import ModelNotFound
from app.settings import MAX_INPUTS
from lora_core.specs.task import SingleLabelSpec
from lora_core.tasks.base import Calibration
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import WAIT
from tests.tiny_artifact import make_artifact

TEXT, OTHER = "a good film", "a dull plot"
MANY = ["a"] * MAX_INPUTS


def predict(client: TestClient, path: str = "/predict", **body: Any) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def labels(rows: Any) -> list[str]:
    return [row["label"] for row in rows]


def test_response_follows_request_format(client: TestClient, publish: Publish) -> None:
    publish()
    flat = predict(client, inputs=TEXT)
    assert labels(flat) == ["good", "bad"]
    assert predict(client, inputs=[TEXT]) == [flat]
    assert predict(client, inputs=[[TEXT]]) == [flat]
    batch, nested_batch = (
        predict(client, inputs=[TEXT, OTHER]),
        predict(client, inputs=[[TEXT], [OTHER]]),
    )
    assert [labels(row) for row in batch] == [labels(row) for row in nested_batch]
    for row, other in zip(
        batch, nested_batch, strict=True
    ):  # batched on one core, or each on its own
        scores = [label["score"] for label in row]
        assert scores == pytest.approx([label["score"] for label in other], abs=1e-6)
    for nested in (
        predict(client, inputs=TEXT, parameters={}),
        predict(client, inputs=TEXT, parameters=None),
        predict(client, "/predict?format=hf", inputs=TEXT),
    ):
        assert nested == [flat]
    assert predict(client, "/predict?format=tei", inputs=TEXT, parameters={}) == flat
    assert predict(client, inputs=TEXT, options={"wait_for_model": True}, other=1) == flat


@pytest.mark.parametrize(
    "path", ["/", "/invocations", "/models/sentiment", "/models/sentiment/predict"]
)
def test_path_aliases_return_the_same(client: TestClient, publish: Publish, path: str) -> None:
    publish()
    assert predict(client, path, inputs=TEXT) == predict(client, inputs=TEXT)


def test_vertex_wraps_request_and_response(client: TestClient, publish: Publish) -> None:
    publish()
    wrapped = predict(client, "/vertex", instances=[{"inputs": TEXT}, {"inputs": [OTHER]}])
    flat, [nested] = wrapped["predictions"]
    for row, text in ((flat, TEXT), (nested, OTHER)):
        alone = predict(client, inputs=text)
        assert row == [{**each, "score": pytest.approx(each["score"], abs=1e-6)} for each in alone]
    for instances in ([{"inputs": TEXT}] * 65, [{"inputs": [TEXT] * 33}] * 2):
        too_many = client.post("/vertex", json={"instances": instances})
        assert (too_many.status_code, too_many.json()["code"]) == (422, "too_many_inputs")


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("/predict", "inputs", [*MANY, 1]),
        ("/vertex", "instances", [{"inputs": MANY[:-1]}, {"inputs": 1}, {"inputs": [1]}]),
        ("/rerank", "texts", [*MANY, 1]),
        ("/openai/v1/completions", "prompt", [*MANY, 1]),
        ("/openai/v1/moderations", "input", [*MANY, 1]),
        ("/mistral/v1/classifications", "input", [*MANY, 1]),
        ("/mistral/v1/chat/classifications", "input", [*MANY, 1]),
    ],
)
def test_bodies_with_very_many_texts_are_rejected_unread(
    client: TestClient, path: str, field: str, value: Any
) -> None:
    response = client.post(path, json={"model": "sentiment", "query": TEXT, field: value})
    error = response.json()
    code = error.get("error", {}).get("code") if path.startswith("/openai") else error["code"]
    assert code == "too_many_inputs", response.text
    assert "max_client_batch_size" in response.text
    assert str(MAX_INPUTS) not in response.text


@pytest.mark.parametrize(
    ("path", "inputs"),
    [
        ("/predict", [[TEXT, OTHER, "\x00"]]),
        ("/v1/models/sentiment/explain", [TEXT, OTHER, "\x00"]),
    ],
)
def test_only_two_texts_of_a_pair_are_read(client: TestClient, path: str, inputs: Any) -> None:
    response = client.post(path, json={"inputs": inputs})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_pair")


def test_vertex_headers_cover_all_instances(client: TestClient, publish: Publish) -> None:
    publish("a", promote=False)
    publish("b", promote=False)
    long = "good " * 80
    texts = {"a:1": [long, TEXT, long], "b:1": [TEXT]}
    instances = [{"inputs": each, "model": ref} for ref, sent in texts.items() for each in sent]
    headers = client.post("/vertex", json={"instances": instances}).headers
    assert headers["X-Model-Version"] == "a:1, b:1"
    assert headers["X-Truncated"] == "2"
    assert headers["x-compute-characters"] == str(2 * len(long) + 2 * len(TEXT))


def test_failed_vertex_instance_cancels_the_others(
    app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled: list[str] = []

    async def get(ref: str, **_: Any) -> None:
        if ref == "missing":
            raise ModelNotFound(ref=ref)
        try:
            await asyncio.sleep(WAIT)
        except asyncio.CancelledError:
            cancelled.append(ref)
            raise

    monkeypatch.setattr(app.state.serving.pool, "get", get)
    instances = [{"inputs": TEXT, "model": ref} for ref in ("slow", "missing")]
    assert client.post("/vertex", json={"instances": instances}).status_code == 404
    assert cancelled == ["slow"]
    assert app.state.serving.admission.texts == 0


def test_score_functions_and_raw_scores(client: TestClient, publish: Publish) -> None:
    merged = publish() / "merged"
    model = AutoModelForSequenceClassification.from_pretrained(merged)
    tokens = AutoTokenizer.from_pretrained(merged)(TEXT, return_tensors="pt")
    with torch.no_grad():
        logits = model(**tokens).logits[0]
    expected = {"softmax": logits.softmax(-1), "sigmoid": logits.sigmoid(), "none": logits}
    scores = {
        name: predict(client, inputs=TEXT, parameters={"function_to_apply": name})[0]
        for name in expected
    }
    scores["raw"] = predict(client, inputs=TEXT, raw_scores=True)
    for name, rows in scores.items():
        by_label = {row["label"]: row["score"] for row in rows}
        for index, label in model.config.id2label.items():
            reference = expected["none" if name == "raw" else name][index].item()
            assert by_label[label] == pytest.approx(reference, abs=1e-5), name


def test_top_k_limits_labels(client: TestClient, publish: Publish) -> None:
    publish()
    assert labels(predict(client, inputs=TEXT, top_k=1)) == ["good"]
    assert labels(predict(client, inputs=TEXT, parameters={"top_k": 1})[0]) == ["good"]
    assert labels(predict(client, inputs=TEXT, top_k=9)) == ["good", "bad"]


def test_abstain_below_returns_no_labels(client: TestClient, publish: Publish) -> None:
    publish()
    best = predict(client, inputs=TEXT)[0]["score"]
    sure = client.post("/predict", json={"inputs": [TEXT], "abstain_below": best - 1e-6})
    unsure = client.post("/predict", json={"inputs": [TEXT, TEXT], "abstain_below": best + 1e-6})
    assert labels(sure.json()[0]) == ["good", "bad"]
    assert "x-abstained" not in sure.headers
    assert unsure.json() == [[], []]
    assert unsure.headers["x-abstained"] == "2"


def test_abstain_below_compares_probabilities_of_raw_scores_too(
    client: TestClient, publish: Publish
) -> None:
    publish()
    best = predict(client, inputs=TEXT)[0]["score"]
    raw = predict(client, inputs=[TEXT], raw_scores=True)
    for threshold, expected in ((best - 1e-6, raw), (best + 1e-6, [[]])):
        body = {"inputs": [TEXT], "raw_scores": True, "abstain_below": threshold}
        assert predict(client, **body) == expected


def test_abstain_below_compares_the_predicted_label_of_tuned_thresholds(
    client: TestClient, publish: Publish, tmp_path: Path
) -> None:
    calibration = Calibration(temperature=1.0, thresholds=(0.01, 0.99))
    publish(
        artifact=make_artifact(
            tmp_path / "tuned",
            task=SingleLabelSpec(tune_thresholds=True),
            calibration=calibration,
        )
    )
    rare, frequent = predict(client, inputs=TEXT)
    assert (rare["label"], frequent["label"]) == ("bad", "good")
    assert rare["score"] < frequent["score"]
    assert predict(client, inputs=TEXT, top_k=1) == [rare]
    for threshold, expected in ((rare["score"] - 1e-6, [rare, frequent]), (0.5, [])):
        assert predict(client, inputs=TEXT, abstain_below=threshold) == expected


def test_truncation_direction(client: TestClient, publish: Publish) -> None:
    publish()
    long = "good " * 80 + "awful " * 80
    right = predict(client, inputs=long)
    assert right == predict(client, inputs=long, truncation_direction="Right")
    left = predict(client, inputs=long, truncation_direction="left")
    kept = predict(client, inputs="awful " * 62)  # 64 tokens with the special ones
    assert left == [{**row, "score": pytest.approx(row["score"], abs=1e-6)} for row in kept]
    assert left != right


def test_text_pair_is_rejected(client: TestClient, publish: Publish) -> None:
    publish()
    response = client.post("/predict", json={"inputs": [[TEXT], [TEXT, OTHER]]})
    assert (response.status_code, response.json()["code"]) == (422, "pair_refused")
    assert "Input 1 is a pair of texts" in response.json()["error"]


def test_info_describes_the_model(client: TestClient, publish: Publish) -> None:
    publish()
    info = client.get("/info").json()
    assert info == client.get("/models/sentiment:1/info").json()
    assert info == client.get("/models/sentiment/predict/info").json()
    assert info["model_type"] == {
        "classifier": {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}}
    }
    assert (info["model_id"], info["max_input_length"]) == ("sentiment:1", 64)
    assert info["model_dtype"] in ("float32", "bfloat16")
    for path in ("/models/sentiment/health", "/models/sentiment@production/predict/health"):
        assert client.get(path).status_code == 200
    for path in ("/models/other/info", "/models/other/health", "/models/other/predict/info"):
        response = client.get(path)
        assert (response.status_code, response.json()["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("sent", ["soon", "-1", "0", "nan", "inf"])
def test_invalid_timeout_is_rejected(client: TestClient, publish: Publish, sent: str) -> None:
    publish()
    response = client.post("/predict", json={"inputs": TEXT}, headers={"X-Request-Timeout": sent})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_timeout")
