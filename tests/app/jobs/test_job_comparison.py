"""Job comparison: accuracies, the paired test, settings that differ."""

import base64
from collections.abc import Callable
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest
from starlette.testclient import TestClient

from app.database.engines import Database
from app.jobs.results import comparison
from app.jobs.results.comparison import differing_settings

Submit = Callable[..., dict[str, Any]]
Answer = Callable[..., str]


def correctness(right: NDArray[np.bool_], texts: str) -> dict[str, Any]:
    bits = base64.b64encode(np.packbits(right).tobytes()).decode()
    return {"texts_sha256": texts * 64, "count": len(right), "correct": bits}


@pytest.fixture
def answer(submit: Submit, database: Database) -> Answer:
    """Return a function that creates a job with this correctness; `texts` names the texts."""

    def make(
        test: NDArray[np.bool_] | None = None,
        validation: NDArray[np.bool_] | None = None,
        texts: str = "a",
        **fields: Any,
    ) -> str:
        job_id: str = submit(**fields)["id"]
        parts = {"test": test, "validation": validation}
        by_split = {
            part: correctness(right, texts) for part, right in parts.items() if right is not None
        }
        with database.write() as session:
            comparison.store_correctness(session, UUID(job_id), by_split)
        return job_id

    return make


def compare(client: TestClient, *jobs: str) -> Any:
    found = client.get("/v1/jobs/compare", params={"job": jobs})
    assert found.status_code == 200, found.text
    return found.json()


def test_accuracies_have_intervals_and_each_job_is_tested_against_the_first(
    client: TestClient, answer: Answer
) -> None:
    random = np.random.default_rng(1)
    first, second, third = (random.random(403) < share for share in (0.7, 0.8, 0.71))
    jobs = [answer(first, first[:100]), answer(second, second[:100]), answer(third)]
    found = compare(client, *jobs)["jobs"]
    assert [each["job"]["id"] for each in found] == jobs
    for each, right in zip(found, (first, second, third), strict=True):
        low, high = binomtest(int(right.sum()), 403).proportion_ci(method="wilson")
        part = each["test"]
        assert part["accuracy"] == pytest.approx(right.mean())
        assert (part["low"], part["high"], part["texts"]) == pytest.approx((low, high, 403))
    assert found[0]["test"]["against_first"] is None
    for each, right in zip(found[1:], (second, third), strict=True):
        pair = each["test"]["against_first"]
        gained, lost = int((right & ~first).sum()), int((first & ~right).sum())
        assert (pair["only_this"], pair["only_first"]) == (gained, lost)
        assert pair["p"] == pytest.approx(binomtest(gained, gained + lost).pvalue)
        assert pair["difference"] == pytest.approx(right.mean() - first.mean())
        assert pair["low"] < pair["difference"] < pair["high"]
    assert found[1]["validation"]["texts"] == 100
    assert found[2]["validation"] is None


def test_jobs_without_common_texts_are_unpaired(client: TestClient, answer: Answer) -> None:
    right = np.ones(10, dtype=bool)
    same, other, none = answer(right), answer(right, texts="b"), answer(validation=right)
    found = compare(client, same, other, none)["jobs"]
    assert [each["test"] and each["test"]["unpaired"] for each in found] == [
        None, "other_texts", None,
    ]  # fmt: skip
    assert found[1]["test"]["against_first"] is None
    assert found[2]["validation"]["unpaired"] == "first_has_none"


def test_differing_settings_have_the_value_of_each_job(client: TestClient, submit: Submit) -> None:
    jobs = [
        submit(method={"type": "lora", "r": 4}, name="a")["id"],
        submit(method={"type": "lora", "r": 16, "targets": ["query"]}, priority=3)["id"],
        submit(method={"type": "full"})["id"],
    ]
    found = compare(client, *jobs)["settings"]
    assert found["method.type"] == ["lora", "lora", "full"]
    assert found["method.r"] == [4, 16, None]
    assert found["method.targets"][1:] == [["query"], None]
    assert "data.source" not in found
    assert "name" not in found
    assert next(iter(found)).startswith("method.")
    assert compare(client, jobs[0])["settings"] == {}


def test_one_and_true_differ() -> None:
    assert differing_settings([{"a": 1, "b": {"c": 0}}, {"a": True, "b": {"c": 0}}]) == {
        "a": [1, True]
    }


def test_unfinished_jobs_can_be_compared(client: TestClient, submit: Submit) -> None:
    found = compare(client, submit()["id"], submit()["id"])
    assert [(each["validation"], each["test"]) for each in found["jobs"]] == [(None, None)] * 2
    assert found["jobs"][1]["job"]["queue_position"] == 2


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ("", 422, "validation_failed"),
        (f"job={UUID(int=1)}", 404, "job_not_found"),
        ("job=x", 404, "job_not_found"),
        ("&".join(f"job={UUID(int=n)}" for n in range(21)), 422, "validation_failed"),
    ],
)
def test_invalid_comparisons_are_rejected(
    client: TestClient, query: str, status: int, code: str
) -> None:
    answer = client.get(f"/v1/jobs/compare?{query}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_job_is_not_compared_with_itself(client: TestClient, submit: Submit) -> None:
    job_id = submit()["id"]
    answer = client.get(f"/v1/jobs/compare?job={job_id}&job={job_id}")
    assert (answer.status_code, answer.json()["code"]) == (422, "duplicate_job")
    assert job_id in answer.json()["detail"]
