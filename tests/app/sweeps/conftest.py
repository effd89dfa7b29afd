"""Fixtures: sweeps through the API, and a worker that trains nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.resources import Resources
from tests.app.sweeps.fake_worker import FakeSweepWorker

JOB = {"method": {"type": "lora", "targets": ["query", "value"]}, "data": {"train_size": 100}}
SPACE = {"method.alpha": [4, 8, 16, 32], "method.r": [2, 4, 8]}
StartSweep = Callable[..., dict[str, Any]]
GetSweep = Callable[[dict[str, Any]], dict[str, Any]]
GetTrials = Callable[[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture
def worker(resources: Resources) -> FakeSweepWorker:
    return FakeSweepWorker(resources)


@pytest.fixture
def start_sweep(client: TestClient) -> StartSweep:
    """Start a sweep, by default a grid of 12 trials."""

    def post(**fields: Any) -> dict[str, Any]:
        response = client.post("/v1/sweeps", json={"job": JOB, "space": SPACE, **fields})
        assert response.status_code == 202, response.text
        assert response.headers["Location"] == f"/v1/sweeps/{response.json()['id']}"
        body: dict[str, Any] = response.json()
        return body

    return post


@pytest.fixture
def get_sweep(client: TestClient) -> GetSweep:
    """Return the current state of a sweep."""

    def get(sweep: dict[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = client.get(f"/v1/sweeps/{sweep['id']}").json()
        return body

    return get


@pytest.fixture
def get_trials(client: TestClient) -> GetTrials:
    """Return the current trials of a sweep."""

    def get(sweep: dict[str, Any]) -> list[dict[str, Any]]:
        body: list[dict[str, Any]] = client.get(f"/v1/sweeps/{sweep['id']}/trials").json()
        return body

    return get
