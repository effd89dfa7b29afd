"""Classifications by the unmodified client of Mistral, on a real server with a real model."""

from pathlib import Path
from typing import Any

import httpx2
import pytest
from mistralai.client.errors import HTTPValidationError, SDKError

from tests.app.mistral.test_files import error_of
from tests.app.serving.conftest import Publish
from tests.tiny_artifact import (
    TEXTS,
    make_multi_label_artifact,
    make_several_targets_artifact,
)


@pytest.fixture
def tickets(publish: Publish, tmp_path: Path) -> None:
    publish("tickets", artifact=make_several_targets_artifact(tmp_path / "tickets"))


def predictions(url: str, model: str) -> Any:
    """Return what `/predict` answers to `TEXTS`."""
    body = {"inputs": list(TEXTS), "model": model}
    return httpx2.post(f"{url.removesuffix('/mistral')}/predict", json=body, timeout=60).json()


def scores(outputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {each["label"]: pytest.approx(each["score"], abs=1e-6) for each in outputs}


@pytest.mark.usefixtures("tickets")
def test_scores_of_several_targets(sdk: Any, url: str) -> None:
    response = sdk.classifiers.classify(model="tickets", inputs=list(TEXTS))
    assert response.model == "tickets:1"
    for result, row in zip(response.results, predictions(url, "tickets"), strict=True):
        assert {name: each.scores for name, each in result.items()} == {
            name: scores(outputs) for name, outputs in row.items()
        }


def test_one_target_is_named_by_its_column(sdk: Any, publish: Publish, url: str) -> None:
    publish("sentiment")
    [result] = sdk.classifiers.classify(model="sentiment", inputs=TEXTS[0]).results
    assert result["label"].scores == scores(predictions(url, "sentiment")[0])


def test_several_labels(sdk: Any, publish: Publish, tmp_path: Path, url: str) -> None:
    publish("topics", artifact=make_multi_label_artifact(tmp_path / "topics"))
    [result] = sdk.classifiers.classify(model="topics", inputs=[TEXTS[0]]).results
    assert result["label"].scores == scores(predictions(url, "topics")[0])


@pytest.mark.usefixtures("tickets")
def test_conversations(sdk: Any, url: str) -> None:
    chats: Any = [{"messages": [{"role": "user", "content": text}]} for text in TEXTS]
    results = sdk.classifiers.classify_chat(model="tickets", input=chats).results
    expected = [
        {name: scores(outputs) for name, outputs in row.items()}
        for row in predictions(url, "tickets")
    ]
    assert [{name: each.scores for name, each in row.items()} for row in results] == expected
    parts: Any = {
        "messages": [
            {"role": "system", "content": "Sort it."},
            {"role": "user", "content": [{"type": "text", "text": TEXTS[0]}]},
        ]
    }
    [result] = sdk.classifiers.classify_chat(model="tickets", input=parts).results
    assert {name: each.scores for name, each in result.items()} == expected[0]


def test_unknown_model(sdk: Any) -> None:
    for model in ("mistral-moderation-latest", "Not a model", f"ft:classifier:a:{'0' * 32}"):
        with pytest.raises(SDKError) as raised:
            sdk.classifiers.classify(model=model, inputs="a")
        assert (raised.value.status_code, error_of(raised)["code"]) == (404, "model_not_found")


@pytest.mark.usefixtures("tickets")
def test_inputs_that_are_refused(sdk: Any) -> None:
    for inputs in ("", " ", ["a", "\n"], ["a"] * 10_000):
        with pytest.raises((HTTPValidationError, SDKError)) as raised:
            sdk.classifiers.classify(model="tickets", inputs=inputs)
        assert raised.value.status_code in (400, 413, 422)
    with pytest.raises(HTTPValidationError) as refused:
        sdk.classifiers.classify(model="tickets", inputs=[])
    assert refused.value.data.detail is not None
    [detail] = refused.value.data.detail
    assert detail.loc == ["body", "input"]
    with pytest.raises(HTTPValidationError) as refused:
        sdk.classifiers.classify_chat(model="tickets", input={"messages": []})
    assert refused.value.data.detail
