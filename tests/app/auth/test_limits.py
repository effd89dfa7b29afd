"""What one key may have; another key is not held to it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from app.auth.service import NewKey
from app.main import create_app
from app.settings import Settings
from tests.app.cli.conftest import serving

REVIEWS = b"text,label\ngood,pos\nbad,neg\n"
JOB = {"method": {"type": "lora"}}
Call = Callable[..., httpx2.Response]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def calls(locked: Settings, new_key: Callable[..., NewKey]) -> Iterator[tuple[Call, Call]]:
    """Those of two keys."""
    limits = {"key_jobs": 3, "key_trials": 5, "key_upload_bytes": 2 * len(REVIEWS)}
    few = locked.model_copy(update=limits)

    def caller() -> Call:
        headers = {"Authorization": f"Bearer {new_key().text}"}

        def call(method: str, path: str, **more: Any) -> httpx2.Response:
            return httpx2.request(method, f"{url}{path}", headers=headers, timeout=30, **more)

        return call

    with serving(create_app(few)) as url:
        yield caller(), caller()


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_jobs_before_their_end(calls: tuple[Call, Call]) -> None:
    mine, other = calls
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: mine("POST", "/v1/jobs", json=JOB), range(6)))
    refused = [answer for answer in answers if answer.status_code != 202]
    assert [refusal(answer) for answer in refused] == [(429, "too_many_jobs")] * 3
    assert mine("POST", "/v1/jobs?dry_run=true", json=JOB).status_code == 200
    assert other("POST", "/v1/jobs", json=JOB).status_code == 202

    queued = mine("GET", "/v1/jobs").json()["data"][-1]["id"]
    assert mine("POST", f"/v1/jobs/{queued}/cancel").status_code == 200
    assert mine("POST", "/v1/jobs", json=JOB).status_code == 202
    assert refusal(mine("POST", "/v1/jobs", json=JOB)) == (429, "too_many_jobs")


def test_trials_of_sweeps_that_run_or_are_paused(calls: tuple[Call, Call]) -> None:
    mine, other = calls
    three = {"job": JOB, "space": {"method.r": [2, 4, 8]}}
    first = mine("POST", "/v1/sweeps", json=three)
    assert first.status_code == 202
    refused = mine("POST", "/v1/sweeps", json=three)
    assert refusal(refused) == (429, "too_many_trials")
    assert "3 trials, and 3 more would be above 5" in refused.json()["detail"]
    assert other("POST", "/v1/sweeps", json=three).status_code == 202

    sweep = first.headers["Location"]
    more = {"space": {"method.r": [16, 32, 64]}}
    assert refusal(mine("POST", f"{sweep}/extend", json=more)) == (429, "too_many_trials")
    assert mine("POST", f"{sweep}/pause").status_code == 200
    assert refusal(mine("POST", "/v1/sweeps", json=three)) == (429, "too_many_trials")
    assert mine("POST", f"{sweep}/stop").status_code == 200
    assert mine("POST", "/v1/sweeps", json=three).status_code == 202


def test_bytes_of_data_sets(calls: tuple[Call, Call]) -> None:
    mine, other = calls

    def upload(call: Call, number: int, content: bytes = REVIEWS) -> httpx2.Response:
        return call("POST", "/v1/datasets", files={"file": (f"film{number}.csv", content)})

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda number: upload(mine, number), range(4)))
    refused = [answer for answer in answers if answer.status_code != 201]
    assert [refusal(answer) for answer in refused] == [(413, "key_bytes_used")] * 2
    kept = next(answer.json() for answer in answers if answer.status_code == 201)
    assert upload(mine, int(kept["name"][-1])).status_code == 200  # the same again takes no room
    assert upload(other, 9).status_code == 201

    assert mine("DELETE", f"/v1/datasets/{kept['id']}").status_code == 204
    assert upload(mine, 5).status_code == 201
