"""A model with several targets over HTTP: all of them, or one as if it were alone."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit, softmax
from starlette.testclient import TestClient
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from app.serving import shadow
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import WAIT
from tests.tiny_artifact import TEXTS, make_several_targets_artifact


@pytest.fixture
def tickets(publish: Publish, tmp_path: Path) -> Path:
    """A model with several targets in production: `tickets`."""
    return publish("tickets", artifact=make_several_targets_artifact(tmp_path / "tickets"))


def logits_by_transformers(artifact: Path) -> NDArray[np.float64]:
    """Return the logits (texts, outputs) of `TEXTS`."""
    merged = artifact / "merged"
    model = AutoModelForSequenceClassification.from_pretrained(merged)
    tokens = AutoTokenizer.from_pretrained(merged)(list(TEXTS), padding=True, return_tensors="pt")
    with torch.no_grad():
        return np.array(model(**tokens).logits.tolist())


def predict(client: TestClient, inputs: Any = TEXTS[0], query: str = "", **more: Any) -> Any:
    return client.post(f"/predict{query}", json={"inputs": inputs, "model": "tickets", **more})


def test_answer_has_each_target_in_its_own_form(client: TestClient, tickets: Path) -> None:
    response = predict(client, list(TEXTS))
    assert response.status_code == 200, response.text
    assert response.headers["X-Task"] == "several_targets"
    for row, z in zip(response.json(), logits_by_transformers(tickets), strict=True):
        assert list(row) == ["flags", "stars", "topic"]
        flags = expit(z[:2] * [1.0, 2.0] + [0.0, 0.5])
        assert {each["label"]: each["score"] for each in row["flags"]} == pytest.approx(
            {"rude": flags[0], "urgent": flags[1]}, abs=1e-5
        )
        assert {each["label"]: each["predicted"] for each in row["flags"]} == {
            "rude": flags[0] >= 0.5, "urgent": flags[1] >= 0.3,
        }  # fmt: skip
        number = 3.0 + 2.0 * z[2]
        [stars] = row["stars"]
        assert stars == {
            "label": "value",
            "score": pytest.approx(number, abs=1e-5),
            "low": pytest.approx(number - 0.25, abs=1e-5),
            "high": pytest.approx(number + 0.25, abs=1e-5),
        }
        billing, refund = softmax(z[3:] / 2.0)
        assert {each["label"]: each["score"] for each in row["topic"]} == pytest.approx(
            {"billing": billing, "refund": refund}, abs=1e-5
        )
        assert row["topic"][0]["label"] == "refund"
    first = predict(client, top_k=1).json()
    assert {name: len(outputs) for name, outputs in first.items()} == {
        "flags": 1, "stars": 1, "topic": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("target", "task"),
    [("flags", "multi_label"), ("stars", "regression"), ("topic", "single_label")],
)
def test_one_target_answers_like_a_model_of_its_own(
    client: TestClient, tickets: Path, target: str, task: str
) -> None:
    everything = predict(client).json()
    response = predict(client, query=f"?target={target}")
    assert response.json() == everything[target]
    assert response.headers["X-Task"] == task
    from_hub = predict(client, query=f"?target={target}", parameters={"top_k": 5})
    assert from_hub.json() == [everything[target]]
    assert client.get("/info", params={"model": "tickets"}).json()["targets"][target] == task


def test_clear_errors(client: TestClient, tickets: Path, publish: Publish) -> None:
    def code(response: Any) -> tuple[int, str]:
        body = response.json()
        return response.status_code, body.get("code") or body["error"]["code"]

    assert code(predict(client, parameters={})) == (422, "target_required")
    for name in ("hf", "tei"):
        assert code(predict(client, query=f"?format={name}")) == (422, "target_required")
    unknown = predict(client, query="?target=mood")
    assert code(unknown) == (422, "unknown_target")
    assert "flags, stars, topic" in unknown.text
    assert code(predict(client, abstain_below=0.9)) == (422, "abstention_not_applicable")
    assert predict(client, query="?target=topic", abstain_below=1.0).json() == []
    explain = client.post("/v1/models/tickets/explain", json={"inputs": TEXTS[0]})
    assert code(explain) == (422, "target_required")
    publish("sentiment")
    alone = client.post("/predict?target=topic", json={"inputs": "a", "model": "sentiment"})
    assert code(alone) == (422, "one_target")
    moderation = {"input": "a", "model": "tickets"}
    assert code(client.post("/openai/v1/moderations", json=moderation)) == (400, "target_required")
    categories = client.post("/openai/v1/moderations?target=flags", json=moderation).json()
    assert set(categories["results"][0]["categories"]) == {"rude", "urgent"}


def test_explains_a_target(client: TestClient, tickets: Path) -> None:
    answer = predict(client, query="?target=topic").json()
    response = client.post("/v1/models/tickets/explain?target=topic", json={"inputs": TEXTS[0]})
    assert response.status_code == 200, response.text
    explained = response.json()
    assert explained["label"] == answer[0]["label"]
    assert explained["score"] == pytest.approx(answer[0]["score"], abs=1e-5)
    added = sum(word["score"] for word in explained["words"])
    assert added == pytest.approx(explained["score"] - explained["empty_score"], abs=1e-4)
    wrong = client.post(
        "/v1/models/tickets/explain?target=topic", json={"inputs": TEXTS[0], "label": "rude"}
    )
    assert wrong.json()["code"] == "label_unknown"


def test_shadow_agrees_on_all_targets_with_the_same_model(
    client: TestClient,
    tickets: Path,
    publish: Publish,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shadow, "CANDIDATES_TTL_SECONDS", 0.0)
    publish(
        "tickets", artifact=make_several_targets_artifact(tmp_path / "candidate"), promote=False
    )
    client.put("/v1/models/tickets/aliases/shadow", json={"version": 2}).raise_for_status()
    deadline = time.monotonic() + WAIT
    while not (pairs := client.get("/v1/models/tickets/shadow").json()) or not pairs[0]["texts"]:
        assert time.monotonic() < deadline
        predict(client)
    assert pairs[0]["agreement"] == 1.0
    assert pairs[0]["mean_difference"] == pytest.approx(0.0, abs=1e-6)
