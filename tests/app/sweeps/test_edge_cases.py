"""Cases that could hang a sweep, lose a trial, or take a job from another sweep."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from app.queue.tables import Job
from app.resources import Resources
from app.sweeps import scheduler
from app.sweeps.tables import Sweep
from tests.app.jobs.conftest import upload
from tests.app.sweeps.conftest import JOB, GetSweep, StartSweep
from tests.app.sweeps.fake_worker import FakeSweepWorker

__all__ = ["upload"]

ONE = {"method.alpha": [8]}
RATES = {"optim.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}


def test_a_proposed_trial_that_cannot_run_does_not_prevent_a_retry(
    start_sweep: StartSweep, get_sweep: GetSweep, worker: FakeSweepWorker, client: TestClient
) -> None:
    """Each bound of the space fits the base, both together do not."""
    space = {"method.r": [4, 385], "method.targets": [["query"], ["mlp"]]}
    rejected = client.post("/v1/sweeps", json={"job": JOB, "space": space}).json()
    assert rejected["code"] == "invalid_trials"
    blocks = {"method.layers": [[0], [1]], "base": ["minilm-l6"], "method.r": [2, 4]}
    sweep = start_sweep(space=blocks, strategy={"type": "tpe", "trials": 6, "batch": 2})
    worker.should_fail = lambda spec: spec["method"]["r"] == 4
    worker.run_jobs()
    worker.should_fail = lambda _: False
    again = client.post(f"/v1/sweeps/{sweep['id']}/retry")
    assert again.status_code == 200
    worker.run_jobs()
    assert get_sweep(sweep)["trial_counts"]["failed"] == 0


def test_a_search_continues_in_a_changed_space(
    start_sweep: StartSweep, get_sweep: GetSweep, worker: FakeSweepWorker, client: TestClient
) -> None:
    sweep = start_sweep(space=RATES, strategy={"type": "tpe", "trials": 4, "batch": 2})
    worker.run_jobs()
    narrower = {"optim.learning_rate": {"low": 2e-4, "high": 3e-4}}
    body = {"space": narrower, "trials": 8}
    assert client.post(f"/v1/sweeps/{sweep['id']}/extend", json=body).status_code == 200
    worker.run_jobs()
    assert (get_sweep(sweep)["state"], get_sweep(sweep)["trial_count"]) == ("finished", 8)
    later = [each.spec["optim"]["learning_rate"] for each in worker.jobs_run[4:]]
    assert all(2e-4 <= rate <= 3e-4 for rate in later)


def test_an_extension_of_a_search_validates_the_bounds(
    start_sweep: StartSweep, worker: FakeSweepWorker, client: TestClient
) -> None:
    space = {"method.r": {"low": 1, "high": 8}}
    sweep = start_sweep(space=space, strategy={"type": "tpe", "trials": 2, "batch": 2})
    worker.run_jobs()
    body = {"space": {"method.r": {"low": 1, "high": 4000}}, "trials": 4}
    response = client.post(f"/v1/sweeps/{sweep['id']}/extend", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_trials")


def test_a_broken_sweep_does_not_hold_up_the_others(
    start_sweep: StartSweep, get_sweep: GetSweep, worker: FakeSweepWorker, resources: Resources,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    broken = start_sweep(space={"method.alpha": [4, 8]}, name="broken")
    other = start_sweep(space={"method.alpha": [16, 32]}, name="other")
    with resources.database.write() as session:
        session.get_one(Sweep, UUID(broken["id"])).strategy = {"type": "magic"}
    with monkeypatch.context() as patch:
        patch.setattr(scheduler, "advance_sweeps_after_job", lambda *_: None)
        worker.run_jobs(2)
    for _ in range(3):
        scheduler.advance_running_sweeps(resources)
        worker.run_jobs()
    assert get_sweep(other)["state"] == "finished"


def test_stop_keeps_a_job_that_a_paused_sweep_uses(
    start_sweep: StartSweep, get_sweep: GetSweep, worker: FakeSweepWorker, client: TestClient
) -> None:
    one, two = start_sweep(space=ONE), start_sweep(space=ONE, name="two")
    claimed = worker.claim_next()
    assert claimed is not None
    client.post(f"/v1/sweeps/{two['id']}/pause")
    client.post(f"/v1/sweeps/{one['id']}/stop")
    with worker.database.write() as session:
        assert session.get_one(Job, claimed.lease.job_id).cancel_requested_at is None
    worker.run_job(claimed)
    assert get_sweep(two)["trial_counts"]["succeeded"] == 1


def test_a_shared_job_that_is_cancelled_does_not_end_the_trial(
    start_sweep: StartSweep, get_sweep: GetSweep, worker: FakeSweepWorker, client: TestClient
) -> None:
    single = client.post("/v1/jobs", json={**JOB, "method": {**JOB["method"], "alpha": 8}}).json()  # type: ignore[dict-item]
    sweep = start_sweep(space=ONE)
    assert sweep["trial_counts"]["queued"] == 1
    client.post(f"/v1/jobs/{single['id']}/cancel")
    scheduler.advance_running_sweeps(worker.resources)
    assert worker.run_jobs() == 1
    assert get_sweep(sweep)["trial_counts"]["succeeded"] == 1


def test_a_shared_job_that_is_paused_does_not_hold_up_the_trial(
    start_sweep: StartSweep, get_sweep: GetSweep, worker: FakeSweepWorker, client: TestClient
) -> None:
    single = client.post("/v1/jobs", json={**JOB, "method": {**JOB["method"], "alpha": 8}}).json()  # type: ignore[dict-item]
    sweep = start_sweep(space=ONE)
    assert sweep["trial_counts"]["queued"] == 1
    client.post(f"/v1/jobs/{single['id']}/pause")
    scheduler.advance_running_sweeps(worker.resources)
    assert worker.run_jobs() == 1
    assert get_sweep(sweep)["trial_counts"]["succeeded"] == 1
    assert client.get(f"/v1/jobs/{single['id']}").json()["paused"]


def test_trials_whose_shared_jobs_and_data_are_gone_fail_once(
    start_sweep: StartSweep,
    get_sweep: GetSweep,
    worker: FakeSweepWorker,
    upload: Callable[..., UUID],
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler, "MAX_ASSIGNED_PER_TRANSACTION", 2)
    upload("mails")
    job = {"method": {"type": "lora"}, "data": {"source": "mails"}}
    space = {"method.alpha": [4, 8, 16]}
    alphas = [{**job, "method": {"type": "lora", "alpha": alpha}} for alpha in (4, 8, 16)]
    shared = [client.post("/v1/jobs", json=body).json()["id"] for body in alphas]
    sweep = start_sweep(job=job, space=space, max_parallel_jobs=3)
    assert get_sweep(sweep)["trial_counts"]["queued"] == 3
    for job_id in shared:
        client.post(f"/v1/jobs/{job_id}/cancel")
    assert client.delete("/v1/datasets/mails:1").status_code == 204
    more = True
    for _ in range(3):
        with worker.database.write() as session:
            more = more and scheduler.advance_sweep(
                session,
                UUID(sweep["id"]),
                settings=worker.resources.settings,
                notifier=worker.resources.notifier,
            )
    assert not more
    after = get_sweep(sweep)
    assert (after["state"], after["trial_counts"]["failed"]) == ("finished", 3)


def test_the_jobs_of_trials_are_deleted_with_their_sweep(
    start_sweep: StartSweep, get_sweep: GetSweep, worker: FakeSweepWorker, client: TestClient
) -> None:
    body = {**JOB, "method": {**JOB["method"], "alpha": 8}}  # type: ignore[dict-item]
    single = client.post("/v1/jobs", json=body).json()["id"]
    sweep = start_sweep(space={"method.alpha": [4, 8]})
    worker.run_jobs()
    finished = get_sweep(sweep)
    for ran in worker.jobs_run:
        refused = client.delete(f"/v1/jobs/{ran.lease.job_id}")
        assert (refused.status_code, refused.json()["code"]) == (409, "trial_not_deleted")
        assert f"/v1/sweeps/{sweep['id']}" in refused.json()["detail"]
    assert get_sweep(sweep) == finished
    assert client.delete(f"/v1/sweeps/{sweep['id']}").status_code == 204
    left = [job["id"] for job in client.get("/v1/jobs").json()["data"]]
    assert left == [single]
    assert client.delete(f"/v1/jobs/{single}").status_code == 204


def test_a_stopped_sweep_leaves_its_job_to_the_sweep_that_waits_for_it(
    start_sweep: StartSweep, get_sweep: GetSweep, worker: FakeSweepWorker, client: TestClient
) -> None:
    one, two = start_sweep(space=ONE), start_sweep(space=ONE, name="two")
    client.post(f"/v1/sweeps/{one['id']}/stop")
    assert client.delete(f"/v1/sweeps/{one['id']}").status_code == 204
    assert worker.run_jobs() == 1
    assert get_sweep(two)["trial_counts"]["succeeded"] == 1


def test_a_paused_job_is_not_shared(
    start_sweep: StartSweep, get_sweep: GetSweep, worker: FakeSweepWorker, client: TestClient
) -> None:
    single = client.post("/v1/jobs", json={**JOB, "method": {**JOB["method"], "alpha": 8}}).json()  # type: ignore[dict-item]
    client.post(f"/v1/jobs/{single['id']}/pause")
    sweep = start_sweep(space=ONE)
    assert worker.run_jobs() == 1
    assert get_sweep(sweep)["state"] == "finished"


@pytest.mark.parametrize(
    "other",
    [{"runtime": {"device": "cuda"}}, {"time_limit_seconds": 1.0}],
    ids=["device_class", "limit"],
)
def test_a_job_that_may_never_succeed_is_not_shared(
    other: dict[str, Any],
    start_sweep: StartSweep,
    get_sweep: GetSweep,
    worker: FakeSweepWorker,
    client: TestClient,
) -> None:
    body = {**JOB, "method": {**JOB["method"], "alpha": 8}, **other}  # type: ignore[dict-item]
    single = client.post("/v1/jobs", json=body).json()
    sweep = start_sweep(space=ONE)
    worker.run_jobs()
    assert get_sweep(sweep)["state"] == "finished"
    ran = [str(each.lease.job_id) for each in worker.jobs_run]
    assert [each for each in ran if each != single["id"]]


def test_a_shared_job_is_deleted_with_the_last_sweep(
    start_sweep: StartSweep, worker: FakeSweepWorker, client: TestClient
) -> None:
    one, two = start_sweep(space=ONE), start_sweep(space=ONE, name="two")
    worker.run_jobs()
    client.delete(f"/v1/sweeps/{one['id']}")
    job_id = worker.jobs_run[0].lease.job_id
    assert client.get(f"/v1/jobs/{job_id}").json()["sweep_id"] == two["id"]
    client.delete(f"/v1/sweeps/{two['id']}")
    assert client.get(f"/v1/jobs/{job_id}").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"space": {"runtime.seed": {"low": 1, "high": 10**400}}},
        {"space": {"runtime.seed": {"low": 10**400, "high": 1}}},
        {"strategy": {"type": "halving", "min_budget": 1e-320}},
        {"strategy": {"type": "halving", "min_budget": 1e-300}},
    ],
)
def test_numbers_out_of_range_are_rejected(body: dict[str, Any], client: TestClient) -> None:
    sent = {"job": JOB, "space": ONE, **body}
    response = client.post("/v1/sweeps", json=sent)
    assert (response.status_code, response.json()["code"]) == (422, "validation_failed")


def test_rounding_stays_within_bounds_with_many_digits(
    start_sweep: StartSweep, worker: FakeSweepWorker
) -> None:
    bounds = {"low": 0.3333333333, "high": 0.3333333334}
    start_sweep(
        space={"optim.head_dropout": bounds}, strategy={"type": "tpe", "trials": 6, "batch": 2}
    )
    worker.run_jobs()
    drawn = [each.spec["optim"]["head_dropout"] for each in worker.jobs_run]
    assert all(bounds["low"] <= each <= bounds["high"] for each in drawn)
