"""Tests of load shedding: predictions are rejected at capacity before they are read."""

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.serving.admission import MIN_TOKEN_LIMIT
from app.serving.service import ASSUMED_MAX_LENGTH
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import StubPredictor

PATHS = ("/predict", "/", "/invocations", "/vertex", "/models/sentiment", "/models/x/predict")


@pytest.fixture
def overloaded_client(app: FastAPI, client: TestClient, publish: Publish) -> TestClient:
    """A client of a service with capacity for ten more tokens."""
    publish()
    app.state.serving.pool._load_encoder = lambda *_, **__: StubPredictor()
    app.state.serving.admission.texts = 1
    app.state.serving.admission.tokens = MIN_TOKEN_LIMIT - 10
    return client


@pytest.mark.parametrize("path", PATHS)
def test_body_is_not_read_at_capacity(overloaded_client: TestClient, path: str) -> None:
    response = overloaded_client.post(path, content=b"this is no JSON, and longer than ten tokens")
    assert (response.status_code, response.json()["code"]) == (429, "overloaded")
    assert 1 <= int(response.headers["retry-after"]) <= 30
    assert response.headers["x-request-id"]


def test_body_of_unknown_length_counts_as_long(overloaded_client: TestClient) -> None:
    response = overloaded_client.post("/predict", content=iter([b"{}"]))
    assert (response.status_code, response.json()["code"]) == (429, "overloaded")


def test_body_is_read_if_it_may_fit(overloaded_client: TestClient) -> None:
    response = overloaded_client.post(
        "/predict", content=b"{", headers={"Content-Type": "application/json"}
    )
    assert response.json()["code"] == "malformed_json"


def test_other_routes_are_not_affected(overloaded_client: TestClient) -> None:
    assert overloaded_client.get("/info").status_code == 200
    assert overloaded_client.get("/v1/jobs").status_code == 200
    assert overloaded_client.get("/predict").status_code == 405


def test_rejection_is_counted_in_the_metrics(overloaded_client: TestClient) -> None:
    overloaded_client.post(
        "/models/sentiment/predict", json={"inputs": "a film that is long enough"}
    )
    metrics = overloaded_client.get("/metrics").text
    assert 'te_request_failure{err="overloaded"} 1.0' in metrics
    assert 'requests_total{method="POST",route="/models/{ref}/predict",status="4xx"} 1.0' in metrics


def test_texts_longer_than_assumed_are_rejected_once_tokenized(
    app: FastAPI, overloaded_client: TestClient
) -> None:
    admission = app.state.serving.admission
    admission.tokens = MIN_TOKEN_LIMIT - ASSUMED_MAX_LENGTH
    for text, status in (("x" * (ASSUMED_MAX_LENGTH + 1), 429), ("x" * ASSUMED_MAX_LENGTH, 200)):
        response = overloaded_client.post("/predict", json={"inputs": text})
        assert response.status_code == status
    assert (admission.texts, admission.tokens) == (1, MIN_TOKEN_LIMIT - ASSUMED_MAX_LENGTH)
