"""A linear version answers over HTTP what its model answers, long bodies in another thread."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.serving import explanation, shadow
from app.serving.errors import BatchFailed, DeadlinePassed
from app.serving.linear import FEW_CHARACTERS, LinearDeployment
from app.serving.service import Serving
from lora_core.inference.linear import LinearPredictor
from tests.app.serving.conftest import Publish
from tests.app.serving.test_shadow import until
from tests.hostile_archives import reseal
from tests.linear_artifact import make_linear_artifact

TEXTS = ["a good film", "the plot was bad", "good bad 电影", "nothing of it is known"]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    return make_linear_artifact(tmp_path / "made", labels=("bad", "fine", "good"))


@pytest.fixture
def predictor(made: Path, publish: Publish) -> LinearPredictor:
    """What the service should answer like; it is in production."""
    predictor = LinearPredictor.load(made)
    publish(made=made)
    return predictor


def ask(client: TestClient, inputs: Any, **more: Any) -> Any:
    answer = client.post("/predict", json={"inputs": inputs, "model": "sentiment", **more})
    assert answer.status_code == 200, answer.text
    return answer


def test_it_answers_in_every_dialect(client: TestClient, predictor: LinearPredictor) -> None:
    expected = [
        [{"label": label, "score": score} for label, score in row]
        for row in predictor.predict(TEXTS)
    ]
    answer = ask(client, TEXTS)
    assert answer.json() == expected
    assert answer.headers["x-engine"] == "linear-fp64"
    assert answer.headers["x-model-version"] == "sentiment:1"
    assert "x-truncated" not in answer.headers
    assert ask(client, TEXTS[0]).json() == expected[0]
    assert ask(client, TEXTS[0], parameters={"top_k": 1}).json() == [expected[0][:1]]
    assert ask(client, TEXTS, truncate=False).json() == expected
    logits = predictor.forward(predictor.encode(TEXTS[:1]))[0]
    raw = {each["label"]: each["score"] for each in ask(client, TEXTS[0], raw_scores=True).json()}
    assert [raw[label] for label in predictor.labels] == pytest.approx(list(logits))
    vertex = client.post(
        "/vertex", json={"instances": [{"inputs": TEXTS[0], "model": "sentiment"}]}
    )
    assert vertex.json() == {"predictions": [expected[0]]}
    unsure = ask(client, TEXTS, abstain_below=0.99)
    assert unsure.headers["x-abstained"] == "4"
    info = client.get("/models/sentiment/info").json()
    assert (info["engine"], info["model_dtype"]) == ("linear-fp64", "float64")
    metrics = client.get("/metrics").text
    assert 'engine="linear-fp64"' in metrics


def test_an_empty_text_is_refused(client: TestClient, predictor: LinearPredictor) -> None:
    answer = client.post("/predict", json={"inputs": ["good", " "]})
    assert answer.status_code == 400


def test_long_bodies_are_computed_in_another_thread(
    client: TestClient, predictor: LinearPredictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []
    forward = LinearPredictor.forward

    def noted(self: LinearPredictor, items: Any) -> Any:
        names.append(threading.current_thread().name)
        return forward(self, items)

    monkeypatch.setattr(LinearPredictor, "forward", noted)
    long = ["good film " * (FEW_CHARACTERS // 20), "bad " * FEW_CHARACTERS]
    answers = ask(client, long).json()
    assert [row[0]["label"] for row in answers] == ["good", "bad"]
    assert [len(row) for row in answers] == [3, 3]
    assert answers[0][0]["score"] == pytest.approx(predictor.predict(long)[0][0][1])
    assert names[-2].startswith("tokenise")
    ask(client, TEXTS)
    assert not names[-1].startswith("tokenise")


@pytest.mark.anyio
async def test_what_is_late_or_breaks_is_told(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment = LinearDeployment("words:1", LinearPredictor.load(made), None)  # type: ignore[arg-type]
    reading = await deployment.tokenise(TEXTS, truncate=True, side="right")
    assert reading.tokens == sum(len(text.split()) for text in TEXTS)
    with pytest.raises(DeadlinePassed):
        await deployment.compute(reading, deadline=time.monotonic() - 1)

    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(LinearPredictor, "forward", fail)
    with pytest.raises(BatchFailed, match="MemoryError"):
        await deployment.compute(reading, deadline=time.monotonic() + 60)


def explain(client: TestClient, inputs: str, **more: Any) -> Any:
    answer = client.post("/v1/models/sentiment/explain", json={"inputs": inputs, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_explanation_is_exact_and_asks_once(
    client: TestClient, predictor: LinearPredictor
) -> None:
    text = "İs it good, or bad? GOOD film"
    found = explain(client, text, label="good")
    assert (found["texts"], found["grouped"]) == (1, False)
    answers = dict(predictor.predict([text])[0])
    assert found["score"] == pytest.approx(answers["good"])
    total = sum(word["score"] for word in found["words"])
    assert total == pytest.approx(found["score"] - found["empty_score"], abs=1e-9)
    scores = {word["text"]: word["score"] for word in found["words"]}
    assert min(scores["good"], scores["GOOD"]) > 0 > scores["bad"]
    assert all(text[w["start"] : w["end"]] == w["text"] for w in found["words"])
    best = explain(client, text)
    assert best["label"] == max(answers, key=lambda label: answers[label])
    answer = client.post(
        "/v1/models/sentiment/explain", json={"inputs": text, "label": "unheard-of"}
    )
    assert answer.json()["code"] == "label_unknown"


def test_of_very_many_words_neighbours_count_as_one(
    client: TestClient,
    predictor: LinearPredictor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(explanation, "MOST_EXACT_WORDS", 3)
    found = explain(client, "good film that was not bad")
    assert found["grouped"]
    assert [word["text"] for word in found["words"]] == ["good film", "that was", "not bad"]
    total = sum(word["score"] for word in found["words"])
    assert total == pytest.approx(found["score"] - found["empty_score"], abs=1e-9)


def test_an_encoder_may_be_its_shadow(
    client: TestClient,
    predictor: LinearPredictor,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shadow, "FRESH_SECONDS", 0.0)
    publish(promote=False)
    client.put("/v1/models/sentiment/aliases/shadow", json={"version": 2})

    def compared() -> Any:
        ask(client, TEXTS)
        pairs = client.get("/v1/models/sentiment/shadow").json()
        return pairs if pairs and pairs[0]["texts"] >= 4 else None

    [pair] = until(compared)
    assert pair["failed"] == 0


def spoiled(directory: Path) -> None:
    said = json.loads((directory / "linear.json").read_text())
    said["vectorizer"]["token_pattern"] = "(a+)+$"
    (directory / "linear.json").write_text(json.dumps(said))
    reseal(directory)


def swapped(directory: Path) -> None:
    said = json.loads((directory / "linear.json").read_text())
    said["terms"].reverse()
    (directory / "linear.json").write_text(json.dumps(said))
    reseal(directory)


@pytest.mark.parametrize("imported", [False, True])
@pytest.mark.parametrize(
    ("spoil", "code"), [(spoiled, "model_refused"), (swapped, "model_disagrees")]
)
def test_one_that_does_not_fit_is_not_served(
    client: TestClient, made: Path, publish: Publish, spoil: Any, code: str, imported: bool
) -> None:
    publish(made=made, before=spoil, imported=imported)
    answer = client.post("/predict", json={"inputs": "good"})
    assert (answer.status_code, answer.json()["code"]) == (424, code)


def test_loading_and_answering_need_no_engine(
    app: FastAPI,
    client: TestClient,
    predictor: LinearPredictor,
) -> None:
    ask(client, TEXTS)
    serving: Serving = app.state.serving
    assert serving.batcher.tokens_per_second is None  # nothing that encoders are measured by
    assert serving.pool._bytes() > 0
