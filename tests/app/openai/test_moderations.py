"""Moderations by the unmodified client of OpenAI, on a real server with a real model."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI

from tests.app.openai.conftest import RequestCounter
from tests.app.serving.conftest import Publish
from tests.tiny_artifact import (
    TEXTS,
    TOPICS,
    make_multi_label_artifact,
    make_regression_artifact,
)


@pytest.fixture
def topics(publish: Publish, tmp_path: Path) -> None:
    publish("topics", artifact=make_multi_label_artifact(tmp_path / "topics"))


def predictions(url: str, *texts: str) -> list[dict[str, Any]]:
    """Return the outputs of each text by label, as `/predict` answers."""
    body = {"inputs": list(texts), "model": "topics"}
    rows = httpx2.post(f"{url.removesuffix('/openai/v1')}/predict", json=body, timeout=60).json()
    return [{each["label"]: each for each in row} for row in rows]


@pytest.mark.usefixtures("topics")
def test_categories_are_the_labels(sdk: OpenAI, url: str) -> None:
    answer = sdk.moderations.create(model="topics", input=list(TEXTS))
    assert answer.id.startswith("modr-")
    assert answer.model == "topics:1"
    for result, expected in zip(answer.results, predictions(url, *TEXTS), strict=True):
        categories = result.categories.model_extra
        assert categories == {name: expected[name]["predicted"] for name in TOPICS}
        scores = {name: pytest.approx(expected[name]["score"], abs=1e-6) for name in TOPICS}
        assert result.category_scores.model_extra == scores
        assert result.flagged is any(categories.values())
        applied = result.category_applied_input_types.model_extra
        assert applied == {name: ["text"] for name in TOPICS}
    assert answer.results[0].categories.acting is True  # type: ignore[attr-defined]


@pytest.mark.usefixtures("topics")
def test_one_text(sdk: OpenAI, url: str) -> None:
    parts: Any = [{"type": "text", "text": TEXTS[0]}]
    for text in (TEXTS[0], parts):
        [result] = sdk.moderations.create(input=text).results  # the only model in production
        [expected] = predictions(url, TEXTS[0])
        assert result.category_scores.model_extra == {
            name: pytest.approx(expected[name]["score"], abs=1e-6) for name in TOPICS
        }


@pytest.mark.usefixtures("topics")
def test_async_client(url: str) -> None:
    async def moderate() -> Any:
        async with AsyncOpenAI(base_url=url, api_key="none") as client:
            return await client.moderations.create(model="topics", input=TEXTS[0])

    assert asyncio.run(moderate()).results[0].flagged is True


def test_text_without_labels_is_not_flagged(sdk: OpenAI, publish: Publish, tmp_path: Path) -> None:
    artifact = make_multi_label_artifact(tmp_path / "topics", thresholds=(1.0, 1.0, 1.0))
    publish("topics", artifact=artifact)
    [result] = sdk.moderations.create(model="topics", input=TEXTS[0]).results
    assert result.flagged is False
    assert set((result.categories.model_extra or {}).values()) == {False}


def test_model_of_another_task(
    sdk: OpenAI, publish: Publish, counter: RequestCounter, tmp_path: Path
) -> None:
    publish()
    publish("stars", artifact=make_regression_artifact(tmp_path / "stars"))
    for number, (model, task) in enumerate((("sentiment", "single"), ("stars", "regression")), 1):
        with pytest.raises(BadRequestError, match=task) as raised:
            sdk.moderations.create(model=model, input=TEXTS[0])
        assert (raised.value.code, raised.value.param) == ("moderation_not_applicable", "model")
        assert counter.requests == number  # not repeated


@pytest.mark.usefixtures("topics")
def test_invalid_input(sdk: OpenAI) -> None:
    image: Any = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    invalid: list[Any] = [image, [1, 2], [[1]], [], 3]
    for given in invalid:
        with pytest.raises(BadRequestError) as raised:
            sdk.moderations.create(model="topics", input=given)
        assert raised.value.param == "input"
    for blank in ("", " ", [TEXTS[0], ""]):
        with pytest.raises(BadRequestError) as raised:
            sdk.moderations.create(model="topics", input=blank)
        assert raised.value.code == "empty_input"
    with pytest.raises(BadRequestError) as raised:
        sdk.moderations.create(model="topics", input=[TEXTS[0]] * 1000)
    assert raised.value.code == "too_many_inputs"
    with pytest.raises(NotFoundError):
        sdk.moderations.create(model="omni-moderation-latest", input=TEXTS[0])
