"""Tests of the unmodified Hugging Face hub client against the running service."""

import asyncio
import math
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError

from app.auth.service import CreatedKey
from app.main import create_app
from app.settings import Settings
from tests.app.cli.conftest import serving
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import StubPredictor

TEXT = "a good film"


@pytest.fixture
def url(app: FastAPI, publish: Publish) -> Iterator[str]:
    publish()
    with serving(app) as address:
        yield address


def scores(rows: Any) -> dict[str, float]:
    return {row.label: row.score for row in rows}


def predict_over_http(url: str, **body: Any) -> dict[str, float]:
    rows = httpx2.post(f"{url}/predict", json={"inputs": TEXT, **body}, timeout=60).json()
    return {row["label"]: row["score"] for row in rows}


@pytest.mark.parametrize(
    "path", ["/predict", "/", "/models/sentiment/predict", "/models/sentiment:1"]
)
def test_text_classification(url: str, path: str) -> None:
    rows = InferenceClient().text_classification(TEXT, model=url + path)
    assert [row.label for row in rows] == ["good", "bad"]
    assert scores(rows) == predict_over_http(url)


def test_client_options(url: str) -> None:
    client = InferenceClient(model=f"{url}/predict")
    assert [row.label for row in client.text_classification(TEXT, top_k=1)] == ["good"]
    logits = scores(client.text_classification(TEXT, function_to_apply="none"))
    assert logits == predict_over_http(url, raw_scores=True)
    sigmoid = scores(client.text_classification(TEXT, function_to_apply="sigmoid"))
    assert sigmoid == pytest.approx({k: 1 / (1 + math.exp(-v)) for k, v in logits.items()})
    assert scores(
        client.text_classification(TEXT, function_to_apply="softmax")
    ) == predict_over_http(url)


def test_async_client(url: str) -> None:
    async def classify() -> Any:
        async with AsyncInferenceClient(model=f"{url}/predict") as client:
            return await client.text_classification(TEXT)

    assert scores(asyncio.run(classify())) == predict_over_http(url)


def test_errors_reach_the_client(url: str) -> None:
    client = InferenceClient()
    for path, text, status, words in (
        ("/models/other/predict", TEXT, 404, "Model other@production does not exist"),
        ("/predict", "   ", 400, "Input 0 is empty"),
        ("/predict", "a\x00b", 422, "must not contain a NUL character"),
    ):
        with pytest.raises(HfHubHTTPError) as error:
            client.text_classification(text, model=url + path)
        assert error.value.response.status_code == status
        assert words in str(error.value)


def test_info_and_health(url: str) -> None:
    client = InferenceClient(provider="hf-inference", model=f"{url}/models/sentiment/predict")
    info = client.get_endpoint_info()
    assert info["model_type"]["classifier"]["label2id"] == {"bad": 0, "good": 1}
    assert client.health_check()


def test_slow_response_is_a_timeout(app: FastAPI, url: str) -> None:
    stub = StubPredictor()
    stub.engine.gate.clear()
    app.state.serving.pool._load_encoder = lambda *_, **__: stub
    with pytest.raises(InferenceTimeoutError):
        InferenceClient(timeout=0.3).text_classification(TEXT, model=f"{url}/predict")
    stub.engine.gate.set()


class TestWithKeys:
    """With authentication."""

    @pytest.fixture
    def app(self, auth_settings: Settings) -> FastAPI:
        return create_app(auth_settings)

    def test_client_token_is_the_api_key(
        self, url: str, new_key: Callable[..., CreatedKey]
    ) -> None:
        rows = InferenceClient(token=new_key("predict").text).text_classification(
            TEXT, model=f"{url}/predict"
        )
        assert [row.label for row in rows] == ["good", "bad"]
        with pytest.raises(HfHubHTTPError) as error:
            InferenceClient(token="hf_other").text_classification(TEXT, model=f"{url}/predict")
        assert error.value.response.status_code == 401
        assert "key" in str(error.value)
        assert "hf_other" not in str(error.value.response.text)
