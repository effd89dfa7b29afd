"""Invalid sweeps: each has a stable error code and a message with the place; nothing is started."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.database.engines import Database
from app.queue.tables import Job
from app.sweeps.tables import Sweep
from tests.app.sweeps.conftest import JOB, SPACE
from tests.slow import slow_but

RATE = "optim.learning_rate"


@pytest.fixture(autouse=True)
def _assert_nothing_is_started(database: Database) -> Iterator[None]:
    yield
    with database.read() as session:
        for table in (Job, Sweep):
            assert session.scalars(select(func.count()).select_from(table)).one() == 0


@pytest.mark.parametrize("dry_run", slow_but(["", "?dry_run=true"], ""))
@pytest.mark.parametrize(
    ("body", "code", "expected"),
    [
        ({"space": {}}, "validation_failed", "space: must not be empty"),
        ({"space": {"method.r": []}}, "validation_failed", "must not be empty"),
        ({"space": {"method.r": [4, 4]}}, "validation_failed", "lists the same value twice"),
        ({"space": {"method.rank": [4]}}, "unknown_field", "'method.rank'"),
        ({"space": {"optimizer.lr": [4]}}, "unknown_field", "did you mean optim?"),
        ({"space": {"method.r.x": [4]}}, "unknown_field", "'method.r.x'"),
        ({"space": {"": [4]}}, "unknown_field", "looks like `method.r`"),
        ({"space": {"trial.budget": [0.5]}}, "unknown_field", "sets it itself"),
        ({"space": {"name": ["a"]}}, "unknown_field", "'name'"),
        ({"space": {RATE: {"low": 1, "high": 0.1}}}, "range_reversed", "from 1 to 0.1"),
        ({"space": {RATE: {"low": 0, "high": 1.0, "log": True}}}, "range_not_positive", "not 0"),
        ({"space": {RATE: {"low": 0.1, "high": 1.0}}}, "range_needs_count", "`count`"),
        ({"space": {"runtime.seed": list(range(5001))}}, "validation_failed", "at most 5000"),
        (
            {"space": {"runtime.seed": {"low": 0, "high": 9_999_999}}},
            "too_many_trials_in_sweep",
            "10,000,000 trials",
        ),
        (
            {"space": {"task.type": ["single_label", "multi_label"]}},
            "unknown_field",
            "trials of different tasks cannot be compared",
        ),
        (
            {"objective": "rmse"},
            "objective_unsupported",
            "objective: a single_label task has no rmse; use one of accuracy, macro_f1",
        ),
        (
            {"job": {**JOB, "task": {"type": "regression"}}, "objective": "accuracy"},
            "objective_unsupported",
            "objective: a regression task has no accuracy; use one of rmse, mae",
        ),
        ({"objective": "f1"}, "validation_failed", "objective: must be 'accuracy'"),
        ({"strategy": {"type": "bayes"}}, "validation_failed", "strategy"),
        ({"strategy": {"type": "random"}}, "validation_failed", "strategy.trials"),
        ({"strategy": {"type": "random", "trials": 13}}, "space_too_small", "only 12"),
        ({"strategy": {"type": "halving", "eta": 1}}, "validation_failed", "at least 2"),
        ({"strategy": {"type": "grid", "trials": 3}}, "validation_failed", "unknown field"),
        ({"job": {**JOB, "trial": {"budget": 0.5}}}, "validation_failed", "only the strategy sets"),
        ({"job": {"method": {"type": "magic"}}}, "validation_failed", "job.method.type"),
        ({"job": {**JOB, "base": "nobody/knows-it"}}, "base_not_found", "nobody/knows-it"),
        ({"job": {**JOB, "data": {"source": "mine"}}}, "data_not_found", "mine"),
        ({"max_parallel_jobs": 0}, "validation_failed", "max_parallel_jobs"),
    ],
)  # fmt: skip
def test_invalid_sweep_is_rejected(
    dry_run: str, body: dict[str, Any], code: str, expected: str, client: TestClient
) -> None:
    sent = {"job": JOB, "space": SPACE, **body}
    response = client.post(f"/v1/sweeps{dry_run}", json=sent)
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert expected in response.json()["detail"]


@pytest.mark.parametrize(
    ("space", "count", "first", "reason"),
    [
        ({"method.r": [4, 0, 8, -1]}, 2, 2, "method.r: must be at least 1."),
        ({"method.r": [4, 385]}, 1, 2, "385"),  # larger than the base's hidden size
        ({"method.layers": [[0], [6]]}, 1, 2, "layer"),
        ({"base": ["minilm-l6", "nobody/knows-it"]}, 1, 2, "nobody/knows-it"),
        ({"data.source": ["imdb", "mine"]}, 1, 2, "'mine'"),
        ({"method": [{"type": "lora"}, {"type": "full", "r": 8}]}, 1, 2, "method.r"),
    ],
)
def test_trials_that_could_never_run_are_listed_before_any_runs(
    space: dict[str, Any], count: int, first: int, reason: str, client: TestClient
) -> None:
    response = client.post("/v1/sweeps", json={"job": JOB, "space": space}).json()
    assert response["code"] == "invalid_trials"
    total = len(next(iter(space.values())))
    assert response["detail"].startswith(f"{count} of {total} trials could never run")
    assert f"Trial {first} (" in response["detail"]
    assert reason in response["detail"]


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        ({"method.r": {"low": 1, "high": 4000}}, "Trial 1 (method.r="),
        (
            {"method.type": ["linear", "lora"], "base": ["minilm-l6", "nobody/knows-it"]},
            "nobody/knows-it",
        ),
    ],
)
def test_a_model_based_search_validates_bounds_and_bases_first(
    space: dict[str, Any], reason: str, client: TestClient
) -> None:
    strategy = {"type": "tpe", "trials": 10, "batch": 1}
    response = client.post("/v1/sweeps", json={"job": {}, "space": space, "strategy": strategy})
    assert response.json()["code"] == "invalid_trials"
    assert reason in response.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", ""), ("get", "/trials"), ("get", "/results"), ("get", "/report"), ("delete", ""),
        ("post", "/pause"), ("post", "/stop"), ("post", "/resume"), ("post", "/retry"),
    ],
)  # fmt: skip
def test_an_unknown_sweep_is_not_found(method: str, path: str, client: TestClient) -> None:
    for name in ("00000000-0000-7000-8000-000000000000", "mine"):
        response = client.request(method, f"/v1/sweeps/{name}{path}")
        assert (response.status_code, response.json()["code"]) == (404, "sweep_not_found")


def test_a_run_without_a_model_cannot_be_registered(client: TestClient) -> None:
    body = {**JOB, "result": {"model": False}, "register_as": "mine"}
    response = client.post("/v1/jobs", json=body)
    assert response.status_code == 422
    assert response.json()["errors"][0]["code"] == "no_model"
