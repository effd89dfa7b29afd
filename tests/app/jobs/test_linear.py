"""Jobs of the method `linear`: no base is looked up, and a retry starts from the beginning."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from app.jobs import pretrained_bases
from app.queue.transitions import AttemptResult, Cancelled, PermanentFailure
from app.resources import Resources
from tests.app.jobs.conftest import Submit, Upload
from tests.app.jobs.fake_worker import FakeWorker
from tests.linear_artifact import make_linear_artifact
from tests.prediction_rows import add_model

LINEAR: dict[str, Any] = {"type": "linear"}


@pytest.fixture
def no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail every lookup of a base."""

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a base was looked for")

    monkeypatch.setattr(pretrained_bases, "_resolve_outside_hub", fail)
    monkeypatch.setattr(pretrained_bases, "_resolve_hub", fail)


@pytest.mark.usefixtures("no_base")
@pytest.mark.parametrize("base", [None, "no/such-base", "/root", "sentiment:9"])
def test_the_base_is_null_whatever_is_given(
    client: TestClient, submit: Submit, base: str | None
) -> None:
    fields = {} if base is None else {"base": base}
    job = submit(method=LINEAR, **fields)
    assert (job["method"], job["base"], job["spec"]["base"]) == ("linear", None, None)
    assert client.get(f"/v1/jobs/{job['id']}").json() == job
    assert client.get("/v1/jobs", params={"method": "linear"}).json()["data"][0]["base"] is None


def test_other_methods_need_a_base(client: TestClient) -> None:
    answer = client.post("/v1/jobs", json={"method": {"type": "lora"}, "base": None})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["at"] == "base"


def test_the_plan_estimates_parameters_and_seconds(client: TestClient, upload: Upload) -> None:
    upload(labels={"a": 4000, "b": 4000, "c": 2000})
    few = {"data": {"source": "mails", "train_size": 100}}
    plans = [
        client.post("/v1/jobs", params={"dry_run": True}, json={"method": LINEAR, **more}).json()
        for more in (few, {"data": {"source": "mails"}})
    ]
    weights = [plan["parameters"]["trainable"] for plan in plans]
    assert weights[0] < weights[1] < 3 * 200_001
    assert [plan["parameters"]["exact"] for plan in plans] == [False, False]
    assert 3 <= plans[0]["estimated_seconds"] <= plans[1]["estimated_seconds"] < 60


@pytest.mark.parametrize(
    ("method", "at"),
    [
        ({"C": 0}, "method.C"),
        ({"C": "4"}, "method.C"),
        ({"ngram_range": [2, 1]}, "method.ngram_range"),
        ({"ngram_range": [1, 9]}, "method.ngram_range.1"),
        ({"min_df": 0}, "method.min_df"),
        ({"r": 8}, "method.r"),
    ],
)
def test_settings_of_other_methods_are_rejected(
    client: TestClient, method: dict[str, Any], at: str
) -> None:
    answer = client.post("/v1/jobs", json={"method": {**LINEAR, **method}})
    assert answer.status_code == 422
    assert [error["at"] for error in answer.json()["errors"]] == [at]


def test_a_partial_run_is_rejected(client: TestClient) -> None:
    answer = client.post("/v1/jobs", json={"method": LINEAR, "trial": {"budget": 0.5}})
    assert (answer.status_code, answer.json()["code"]) == (422, "no_partial_run")


@pytest.mark.parametrize(
    "ending", [PermanentFailure("training_crashed", "It crashed."), Cancelled()]
)
def test_a_retry_starts_from_the_beginning(
    client: TestClient, submit: Submit, worker: FakeWorker, ending: AttemptResult
) -> None:
    old = submit(method=LINEAR, register_as="words")
    worker.finish(worker.claim().lease, ending)
    answer = client.post(f"/v1/jobs/{old['id']}/retry")
    assert answer.status_code == 202, answer.text
    new = answer.json()
    assert (new["continues"], new["spec"], new["register_as"]) == (
        old["id"], old["spec"], "words",
    )  # fmt: skip
    assert new["step"] == 0
    claimed = worker.claim()
    assert (str(claimed.lease.job_id), claimed.checkpoint) == (new["id"], None)
    again = client.post(f"/v1/jobs/{old['id']}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "already_retried")


def test_a_linear_version_cannot_be_a_base(
    client: TestClient, resources: Resources, tmp_path: Any
) -> None:
    ref = add_model(resources, make_linear_artifact(tmp_path / "made"), name="words")
    answer = client.post("/v1/jobs", json={"method": {"type": "lora"}, "base": ref})
    assert answer.status_code == 422
    assert answer.json()["code"] == "linear_base"
    assert "linear model, which has no encoder" in answer.text


def sweep(client: TestClient, **more: Any) -> Any:
    body = {"job": {"method": LINEAR}, "space": {"method.C": [1, 4, 16]}, **more}
    return client.post("/v1/sweeps", json=body)


@pytest.mark.usefixtures("no_base")
def test_a_sweep_over_its_settings_needs_no_base(client: TestClient) -> None:
    plan = sweep(client, space={"method.C": [1, 4], "method.ngram_range": [[1, 1], [1, 2]]})
    assert plan.status_code == 202, plan.text
    trials = client.get(f"/v1/sweeps/{plan.json()['id']}/trials").json()
    assert len(trials) == 4


def test_a_sweep_may_mix_it_with_methods_that_have_a_base(client: TestClient) -> None:
    space = {"method.type": ["linear", "baseline"], "runtime.seed": [0]}
    answer = sweep(client, job={"method": {"type": "linear"}}, space=space)
    assert answer.status_code == 202, answer.text


def test_halving_cannot_run_it_partially(client: TestClient) -> None:
    answer = sweep(
        client, strategy={"type": "halving", "eta": 2, "min_budget": 0.5, "min_full_runs": 1}
    )
    assert answer.status_code == 422
    assert "grid, random or tpe" in answer.text
