"""Limits per API key."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from app.auth.service import CreatedKey
from app.main import create_app
from app.settings import Settings
from tests.app.cli.conftest import serving
from tests.slow import MOSTLY_SQLITE, on_both_databases

REVIEWS = b"text,label\ngood,pos\nbad,neg\n"
JOB = {"method": {"type": "lora"}}
Call = Callable[..., httpx2.Response]


@pytest.fixture(params=MOSTLY_SQLITE)
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def calls(
    auth_settings: Settings, new_key: Callable[..., CreatedKey]
) -> Iterator[tuple[Call, Call]]:
    """Functions that send requests with two different API keys."""
    limits = {
        "max_jobs_per_key": 3,
        "max_trials_per_key": 5,
        "max_upload_bytes_per_key": 2 * len(REVIEWS),
    }
    few = auth_settings.model_copy(update=limits)

    def caller() -> Call:
        headers = {"Authorization": f"Bearer {new_key().text}"}

        def call(method: str, path: str, **more: Any) -> httpx2.Response:
            return httpx2.request(method, f"{url}{path}", headers=headers, timeout=30, **more)

        return call

    with serving(create_app(few)) as url:
        yield caller(), caller()


def refusal(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


@on_both_databases
def test_limit_of_unfinished_jobs(calls: tuple[Call, Call]) -> None:
    mine, other = calls
    with ThreadPoolExecutor(6) as pool:
        responses = list(pool.map(lambda _: mine("POST", "/v1/jobs", json=JOB), range(6)))
    refused = [response for response in responses if response.status_code != 202]
    assert [refusal(response) for response in refused] == [(429, "too_many_jobs")] * 3
    assert mine("POST", "/v1/jobs?dry_run=true", json=JOB).status_code == 200
    assert other("POST", "/v1/jobs", json=JOB).status_code == 202

    queued = mine("GET", "/v1/jobs").json()["data"][-1]["id"]
    assert mine("POST", f"/v1/jobs/{queued}/cancel").status_code == 200
    assert mine("POST", "/v1/jobs", json=JOB).status_code == 202
    assert refusal(mine("POST", "/v1/jobs", json=JOB)) == (429, "too_many_jobs")


def test_limit_of_trials_in_active_sweeps(calls: tuple[Call, Call]) -> None:
    mine, other = calls
    three = {"job": JOB, "space": {"method.r": [2, 4, 8]}}
    first = mine("POST", "/v1/sweeps", json=three)
    assert first.status_code == 202
    refused = mine("POST", "/v1/sweeps", json=three)
    assert refusal(refused) == (429, "too_many_trials")
    assert "3 trials. 3 more would exceed the limit of 5" in refused.json()["detail"]
    assert other("POST", "/v1/sweeps", json=three).status_code == 202

    sweep = first.headers["Location"]
    more = {"space": {"method.r": [16, 32, 64]}}
    assert refusal(mine("POST", f"{sweep}/extend", json=more)) == (429, "too_many_trials")
    assert mine("POST", f"{sweep}/pause").status_code == 200
    assert refusal(mine("POST", "/v1/sweeps", json=three)) == (429, "too_many_trials")
    assert mine("POST", f"{sweep}/stop").status_code == 200
    assert mine("POST", "/v1/sweeps", json=three).status_code == 202
    assert refusal(mine("POST", f"{sweep}/resume")) == (429, "too_many_trials")
    assert refusal(mine("POST", f"{sweep}/extend", json=more)) == (409, "invalid_sweep_transition")


@on_both_databases
def test_trials_that_a_search_proposes_later_count(calls: tuple[Call, Call]) -> None:
    mine, _ = calls

    def search(trials: int) -> httpx2.Response:
        strategy = {"type": "tpe", "trials": trials, "batch": 2}
        body = {"job": JOB, "space": {"method.r": [2, 4, 8]}, "strategy": strategy}
        return mine("POST", "/v1/sweeps", json=body)

    assert refusal(search(6)) == (429, "too_many_trials")
    first = search(4)
    refused = search(2)
    assert refusal(refused) == (429, "too_many_trials")
    assert "4 trials. 2 more would exceed the limit of 5" in refused.json()["detail"]
    sweep = first.headers["Location"]
    refused = mine("POST", f"{sweep}/extend", json={"trials": 6})
    assert refusal(refused) == (429, "too_many_trials")
    assert mine("POST", f"{sweep}/extend", json={"trials": 5}).status_code == 200
    assert mine("POST", f"{sweep}/pause").status_code == 200
    assert mine("POST", f"{sweep}/resume").status_code == 200


@on_both_databases
def test_limit_of_dataset_bytes(calls: tuple[Call, Call]) -> None:
    mine, other = calls

    def upload(call: Call, number: int, content: bytes = REVIEWS) -> httpx2.Response:
        return call("POST", "/v1/datasets", files={"file": (f"film{number}.csv", content)})

    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda number: upload(mine, number), range(4)))
    refused = [response for response in responses if response.status_code != 201]
    assert [refusal(response) for response in refused] == [(413, "key_upload_quota_exceeded")] * 2
    kept = next(response.json() for response in responses if response.status_code == 201)
    assert (
        upload(mine, int(kept["name"][-1])).status_code == 200
    )  # the same upload again needs no space
    assert upload(other, 9).status_code == 201

    assert mine("DELETE", f"/v1/datasets/{kept['id']}").status_code == 204
    assert upload(mine, 5).status_code == 201
