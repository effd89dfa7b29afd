"""Sweeps through the API, and a worker beside it that trains nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.resources import Resources
from tests.app.sweeps.stand_in import StandIn

JOB = {"method": {"type": "lora", "targets": ["query", "value"]}, "data": {"train_size": 100}}
SPACE = {"method.alpha": [4, 8, 16, 32], "method.r": [2, 4, 8]}
Start = Callable[..., dict[str, Any]]
Look = Callable[[dict[str, Any]], dict[str, Any]]


@pytest.fixture
def worker(resources: Resources) -> StandIn:
    return StandIn(resources)


@pytest.fixture
def start(client: TestClient) -> Start:
    """Start a sweep: a grid of 12 cells unless said otherwise."""

    def send(**fields: Any) -> dict[str, Any]:
        answer = client.post("/v1/sweeps", json={"job": JOB, "space": SPACE, **fields})
        assert answer.status_code == 202, answer.text
        assert answer.headers["Location"] == f"/v1/sweeps/{answer.json()['id']}"
        body: dict[str, Any] = answer.json()
        return body

    return send


@pytest.fixture
def look(client: TestClient) -> Look:
    """The sweep as it is now."""

    def read(sweep: dict[str, Any]) -> dict[str, Any]:
        body: dict[str, Any] = client.get(f"/v1/sweeps/{sweep['id']}").json()
        return body

    return read


@pytest.fixture
def cells(client: TestClient) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
    """Its cells as they are now."""

    def read(sweep: dict[str, Any]) -> list[dict[str, Any]]:
        body: list[dict[str, Any]] = client.get(f"/v1/sweeps/{sweep['id']}/cells").json()
        return body

    return read
