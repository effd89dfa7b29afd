"""Without room a question is turned away before anybody reads it."""

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.serving.admission import FLOOR_TOKENS
from tests.app.serving.conftest import Publish
from tests.app.serving.stub import StubPredictor

ASKED = ("/predict", "/", "/invocations", "/vertex", "/models/sentiment", "/models/x/predict")


@pytest.fixture
def full(app: FastAPI, client: TestClient, publish: Publish) -> TestClient:
    """A client of a service that has room for ten tokens more."""
    publish()
    app.state.serving.pool._load = lambda *_, **__: StubPredictor()
    app.state.serving.admission.texts = 1
    app.state.serving.admission.tokens = FLOOR_TOKENS - 10
    return client


@pytest.mark.parametrize("path", ASKED)
def test_what_finds_no_room_is_not_read(full: TestClient, path: str) -> None:
    answer = full.post(path, content=b"this is no JSON, and longer than ten tokens")
    assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert answer.headers["x-request-id"]


def test_a_body_of_unknown_length_counts_as_a_long_one(full: TestClient) -> None:
    answer = full.post("/predict", content=iter([b"{}"]))
    assert (answer.status_code, answer.json()["code"]) == (429, "overloaded")


def test_what_may_find_room_is_read(full: TestClient) -> None:
    answer = full.post("/predict", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.json()["code"] == "malformed_json"


def test_other_doors_stay_open(full: TestClient) -> None:
    assert full.get("/info").status_code == 200
    assert full.get("/v1/jobs").status_code == 200
    assert full.get("/predict").status_code == 405


def test_it_is_counted_like_other_refusals(full: TestClient) -> None:
    full.post("/models/sentiment/predict", json={"inputs": "a film that is long enough"})
    told = full.get("/metrics").text
    assert 'te_request_failure{err="overloaded"} 1.0' in told
    assert 'requests_total{method="POST",route="/models/{ref}/predict",status="4xx"} 1.0' in told
