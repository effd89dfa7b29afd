"""A failed or cancelled job is continued as a new one, or the error gives the reason."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from app.auth.tables import LOCAL_KEY_ID
from app.database.engines import Database
from app.idempotency import service as idempotency
from app.idempotency.service import IdempotentRequest
from app.jobs.estimate import STARTUP_SECONDS
from app.jobs.service import create_retry_job
from app.queue.tables import Checkpoint, Job
from app.queue.transitions import AttemptResult, Cancelled, PermanentFailure, RetryableFailure
from app.resources import Resources
from lora_core.training_version import TRAINING_VERSION
from tests.app.jobs.conftest import Upload
from tests.app.jobs.fake_worker import FakeWorker
from tests.job_rows import add_job, update_job

FAILED = PermanentFailure("non_finite", "The loss is NaN.")
Ended = Callable[..., str]


@pytest.fixture
def ended(submit: Callable[..., dict[str, Any]], worker: FakeWorker) -> Ended:
    """Return a function that creates a job with a checkpoint at step 2 and one more step."""

    def make(result: AttemptResult = FAILED, *, saved: bool = True, **fields: Any) -> str:
        job_id: str = submit(**fields)["id"]
        lease = worker.claim().lease
        for step in (1, 2):
            worker.log(lease, step=step, points={"loss": 1 / step})
        if saved:
            worker.save(lease, step=2)
        worker.log(lease, step=3, points={"loss": 1 / 3})
        worker.finish(lease, result)
        return job_id

    return make


def losses(client: TestClient, job_id: str) -> list[tuple[int, int]]:
    points = client.get(f"/v1/jobs/{job_id}/metrics").json()["data"]
    return [(point["step"], point["attempt"]) for point in points]


@pytest.mark.parametrize("result", [FAILED, Cancelled()])
def test_a_retry_is_a_new_job_that_continues_from_the_last_checkpoint(
    client: TestClient, ended: Ended, worker: FakeWorker, result: AttemptResult
) -> None:
    body = {
        "name": "first",
        "metadata": {"ticket": "T-1"},
        "priority": 3,
        "register_as": "mails",
        "time_limit_seconds": 60,
    }
    old_id = ended(result, **body)
    old = client.get(f"/v1/jobs/{old_id}").json()
    answer = client.post(f"/v1/jobs/{old_id}/retry")
    assert answer.status_code == 202, answer.text
    new = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{new['id']}"
    assert (new["state"], new["continues"], new["step"]) == ("queued", old_id, 0)
    same = ("spec", "base", "method", "parameters", *body)
    assert {name: new[name] for name in same} == {name: old[name] for name in same}
    assert client.get(f"/v1/jobs/{old_id}").json() == old
    assert losses(client, new["id"]) == [(1, 0), (2, 0)]

    claimed = worker.claim()
    assert claimed.checkpoint is not None
    assert (str(claimed.checkpoint.job_id), claimed.checkpoint.step) == (old_id, 2)
    worker.log(claimed.lease, step=3, points={"loss": 1 / 3})
    assert losses(client, new["id"]) == [(1, 0), (2, 0), (3, 1)]
    events = client.get(f"/v1/jobs/{new['id']}/events").json()["data"]
    assert [event["kind"] for event in events] == ["queued", "started"]
    seqs = [row["seq"] for row in client.get(f"/v1/jobs/{new['id']}/metrics").json()["data"]]
    assert len({*seqs, *(event["seq"] for event in events)}) == len(seqs) + len(events)


def test_the_estimate_of_a_retry_is_that_of_the_remaining_steps(
    client: TestClient, ended: Ended, worker: FakeWorker, submit: Callable[..., dict[str, Any]]
) -> None:
    whole = submit()["estimated_seconds"] - STARTUP_SECONDS
    worker.claim()
    first = ended()  # saved at 2 of 20 steps
    second = client.post(f"/v1/jobs/{first}/retry").json()
    lease = worker.claim().lease
    worker.save(lease, step=18)
    worker.finish(lease, FAILED)
    third = client.post(f"/v1/jobs/{second['id']}/retry").json()
    remaining = [each["estimated_seconds"] - STARTUP_SECONDS for each in (second, third)]
    assert remaining == pytest.approx([0.9 * whole, 0.1 * whole], abs=1)


def test_the_estimate_of_a_retry_of_auto_leaves_out_the_comparison(
    client: TestClient, worker: FakeWorker, submit: Callable[..., dict[str, Any]]
) -> None:
    job_id = submit(method={"type": "auto"})["id"]
    lease = worker.claim().lease
    worker.note(lease, "Training lora.", kind="training", at=time.time() - 1000, data={})
    worker.save(lease, step=5)  # of 20
    worker.finish(lease, FAILED)
    retry = client.post(f"/v1/jobs/{job_id}/retry").json()
    assert retry["estimated_seconds"] - STARTUP_SECONDS == pytest.approx(3000, rel=0.1)


def test_points_after_the_checkpoint_are_reported_again_whichever_attempt_wrote_them(
    client: TestClient, ended: Ended, worker: FakeWorker
) -> None:
    new_id = client.post(f"/v1/jobs/{ended()}/retry").json()["id"]
    lease = worker.claim().lease
    worker.log(lease, step=3, points={"loss": 1 / 3})
    worker.finish(lease, RetryableFailure("crashed", "It crashed.", backoff_seconds=0))
    assert worker.claim().checkpoint is not None
    assert losses(client, new_id) == [(1, 0), (2, 0)]


def test_a_retry_whose_checkpoint_is_missing_starts_from_the_beginning(
    client: TestClient, ended: Ended, worker: FakeWorker, database: Database
) -> None:
    new_id = client.post(f"/v1/jobs/{ended()}/retry").json()["id"]
    with database.write() as session:
        session.execute(update(Checkpoint).values(bad=True))
    assert worker.claim().checkpoint is None
    assert losses(client, new_id) == []


def test_a_retry_without_checkpoints_is_retried_from_its_own_start(
    client: TestClient, ended: Ended, worker: FakeWorker
) -> None:
    first = ended()
    second = client.post(f"/v1/jobs/{first}/retry").json()["id"]
    worker.finish(worker.claim().lease, FAILED)
    third = client.post(f"/v1/jobs/{second}/retry").json()
    assert third["continues"] == first
    assert losses(client, third["id"]) == [(1, 0), (2, 0)]


def test_one_idempotency_key_creates_one_retry(client: TestClient, ended: Ended) -> None:
    old, unsaved = ended(), ended(saved=False)
    key = {"Idempotency-Key": "again"}
    first = client.post(f"/v1/jobs/{old}/retry", headers=key)
    again = client.post(f"/v1/jobs/{old}/retry", headers=key)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["Idempotency-Replayed"] == "true"
    other = client.post(f"/v1/jobs/{unsaved}/retry", headers=key)
    assert other.status_code == 422


def test_a_retry_reads_the_job_after_it_waited_for_its_key(
    client: TestClient, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = ended()

    def wait_while_the_job_changes(session: Session, call: IdempotentRequest) -> None:
        change = update(Job).where(Job.id == UUID(old)).values(notes="later")
        session.execute(change, execution_options={"synchronize_session": False})

    monkeypatch.setattr(idempotency, "reserve", wait_while_the_job_changes)
    assert client.post(f"/v1/jobs/{old}/retry").json()["notes"] == "later"


def test_a_second_unfinished_retry_is_rejected(client: TestClient, ended: Ended) -> None:
    old = ended()
    new = client.post(f"/v1/jobs/{old}/retry").json()["id"]
    refused = client.post(f"/v1/jobs/{old}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "already_retried")
    assert new in refused.json()["detail"]
    client.post(f"/v1/jobs/{new}/cancel")
    assert client.post(f"/v1/jobs/{old}/retry").status_code == 202


def test_a_job_is_not_deleted_while_its_retry_needs_its_checkpoints(
    client: TestClient, ended: Ended
) -> None:
    old = ended()
    new = client.post(f"/v1/jobs/{old}/retry").json()["id"]
    refused = client.delete(f"/v1/jobs/{old}")
    assert (refused.status_code, refused.json()["code"]) == (409, "job_continued")
    assert new in refused.json()["detail"]
    client.post(f"/v1/jobs/{new}/cancel")
    assert client.delete(f"/v1/jobs/{old}").status_code == 204


def test_a_job_without_a_checkpoint_is_deleted_beside_its_retry(
    client: TestClient, ended: Ended
) -> None:
    old = ended(method={"type": "linear"}, saved=False)
    assert client.post(f"/v1/jobs/{old}/retry").status_code == 202
    assert client.delete(f"/v1/jobs/{old}").status_code == 204


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_a_job_and_its_retry_are_not_retried_at_the_same_time(
    client: TestClient, ended: Ended, worker: FakeWorker, resources: Resources
) -> None:
    first = ended()
    second = client.post(f"/v1/jobs/{first}/retry").json()["id"]
    worker.finish(worker.claim().lease, FAILED)
    with ThreadPoolExecutor(1) as pool:
        with resources.database.write() as session:
            create_retry_job(
                session,
                job_id=UUID(first),
                settings=resources.settings,
                notifier=resources.notifier,
                call=IdempotentRequest(LOCAL_KEY_ID, "POST /v1/jobs/retry", None, None, 1.0),
            )
            refused = pool.submit(client.post, f"/v1/jobs/{second}/retry")
            wait([refused], timeout=1.0)  # for this transaction, or not
        answer = refused.result(20)
    assert (answer.status_code, answer.json()["code"]) == (409, "already_retried")


@pytest.mark.parametrize(("fields", "saved"), [({}, True), ({"method": {"type": "linear"}}, False)])
def test_a_retry_of_a_retry_is_a_retry_of_both(
    client: TestClient, ended: Ended, worker: FakeWorker, fields: dict[str, Any], saved: bool
) -> None:
    """Whether the second one continues the first, or the one that the first continues."""
    first = ended(saved=saved, **fields)
    second = client.post(f"/v1/jobs/{first}/retry").json()["id"]
    lease = worker.claim().lease
    if saved:
        worker.save(lease, step=4)
    worker.finish(lease, FAILED)
    third = client.post(f"/v1/jobs/{second}/retry").json()
    assert third["continues"] == second
    for job_id in (first, second):
        assert refusal(client, job_id) == (409, "already_retried")
    client.post(f"/v1/jobs/{third['id']}/cancel")
    assert client.post(f"/v1/jobs/{first}/retry").status_code == 202


@pytest.mark.parametrize("saved", [True, False])
def test_a_job_that_makes_the_model_of_a_trial_is_no_retry_of_another_one(
    client: TestClient, ended: Ended, database: Database, saved: bool
) -> None:
    """Without a checkpoint of its own, its retry continues the trial, too."""
    trial = ended()
    models = [ended(saved=saved, register_as=name) for name in ("mails", "letters")]
    update_job(database, UUID(trial), sweep_id=uuid4())
    for model in models:
        update_job(database, UUID(model), continues=UUID(trial))
    for model in models:
        retry = client.post(f"/v1/jobs/{model}/retry").json()
        assert retry["continues"] == (model if saved else trial)
        assert refusal(client, model) == (409, "already_retried")


def refusal(client: TestClient, job_id: object) -> tuple[int, str]:
    answer = client.post(f"/v1/jobs/{job_id}/retry")
    return answer.status_code, answer.json()["code"]


def test_jobs_that_cannot_be_retried_get_a_reason(
    client: TestClient,
    submit: Callable[..., dict[str, Any]],
    ended: Ended,
    worker: FakeWorker,
    database: Database,
) -> None:
    assert refusal(client, uuid4()) == (404, "job_not_found")
    run = add_job(database, kind="prediction", device_class="gpu")
    assert refusal(client, run) == (409, "prediction_run_not_retried")
    waits = submit()["id"]
    assert refusal(client, waits) == (409, "job_not_finished")
    worker.claim()
    assert refusal(client, waits) == (409, "job_not_finished")
    assert refusal(client, ended(saved=False)) == (409, "no_checkpoint")
    succeeded = ended()
    update_job(database, UUID(succeeded), state="succeeded")
    assert refusal(client, succeeded) == (409, "job_succeeded")
    trial, sweep = ended(), uuid4()
    update_job(database, UUID(trial), sweep_id=sweep)
    assert refusal(client, trial) == (409, "trial_not_retried")
    assert f"/v1/sweeps/{sweep}/retry" in client.post(f"/v1/jobs/{trial}/retry").json()["detail"]
    old = ended()
    with database.write() as session:
        session.execute(update(Checkpoint).values(training_version=TRAINING_VERSION + 1))
    assert refusal(client, old) == (409, "training_version_changed")


def test_a_job_whose_data_were_deleted_cannot_be_retried(
    client: TestClient, ended: Ended, upload: Upload
) -> None:
    data = upload()
    old = ended(data={"source": "mails"})
    assert client.delete(f"/v1/datasets/{data}").status_code == 204
    assert refusal(client, old) == (422, "data_not_found")
    assert "mails:1" in client.post(f"/v1/jobs/{old}/retry").json()["detail"]
