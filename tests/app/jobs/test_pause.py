"""Pause and resume through the API, also while a worker changes the job."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from sqlalchemy import select
from starlette.testclient import TestClient

from app.database.engines import Database
from app.queue.dispatch import JobTask
from app.queue.enums import JobKind
from app.queue.tables import Job, JobEvent
from app.queue.transitions import Cancelled, Paused, PermanentFailure
from tests.app.jobs.fake_worker import FakeWorker
from tests.job_rows import get_job, update_job
from tests.slow import MOSTLY_SQLITE, on_both_databases

Submit = Callable[..., dict[str, Any]]


@pytest.fixture(params=MOSTLY_SQLITE)
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


class Notified:
    """A notifier that keeps the tasks."""

    def __init__(self) -> None:
        self.tasks: list[JobTask] = []

    def send(self, task: JobTask) -> None:
        self.tasks.append(task)

    def close(self) -> None:
        """Nothing to close."""


@pytest.fixture
def notified(app: FastAPI, client: TestClient) -> Notified:
    notifier = Notified()
    app.state.resources = replace(app.state.resources, notifier=notifier)
    return notifier


def kinds(client: TestClient, job_id: str) -> list[str]:
    return [event["kind"] for event in client.get(f"/v1/jobs/{job_id}/events").json()["data"]]


@on_both_databases
def test_a_queued_job_is_paused_and_resumed(
    client: TestClient, submit: Submit, notified: Notified
) -> None:
    job_id, other = submit()["id"], submit()["id"]
    answer = client.post(f"/v1/jobs/{job_id}/pause")
    assert answer.status_code == 200
    job = answer.json()
    assert (job["id"], job["state"], job["paused"]) == (job_id, "queued", True)
    assert (job["queue_position"], job["waiting"]["code"]) == (None, "paused")
    assert job["waiting"]["since"] == job["pause_requested_at"]
    assert client.get(f"/v1/jobs/{job_id}").json() == job
    assert client.get(f"/v1/jobs/{other}").json()["queue_position"] == 1
    assert client.post(f"/v1/jobs/{job_id}/pause").json() == job
    listed = client.get("/v1/jobs?state=queued").json()["data"]
    assert [(each["id"], each["paused"]) for each in listed] == [(other, False), (job_id, True)]

    notified.tasks.clear()
    resumed = client.post(f"/v1/jobs/{job_id}/resume")
    assert resumed.status_code == 200
    job = resumed.json()
    assert (job["state"], job["paused"], job["queue_position"]) == ("queued", False, 1)
    assert (job["waiting"], job["pause_requested_at"]) == (None, None)
    assert notified.tasks == [JobTask(UUID(job_id), "any", 6)]
    assert client.post(f"/v1/jobs/{job_id}/resume").json() == job
    assert len(notified.tasks) == 1
    assert kinds(client, job_id) == ["queued", "paused", "resume_requested"]


@on_both_databases
def test_a_running_job_stops_and_continues_before_new_jobs(
    client: TestClient, submit: Submit, worker: FakeWorker, notified: Notified
) -> None:
    job_id = submit()["id"]
    lease = worker.claim().lease
    first, again = (client.post(f"/v1/jobs/{job_id}/pause") for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert (first.json()["state"], first.json()["paused"]) == ("running", False)
    worker.save(lease, step=5)
    worker.finish(lease, Paused())
    done = client.post(f"/v1/jobs/{job_id}/pause")
    assert (done.status_code, done.json()["paused"], done.json()["step"]) == (200, True, 5)

    notified.tasks.clear()
    client.post(f"/v1/jobs/{job_id}/resume")
    assert [(task.job_id, task.priority) for task in notified.tasks] == [(UUID(job_id), 3)]
    claimed = worker.claim()
    assert claimed.checkpoint is not None
    assert (claimed.lease.attempt, claimed.checkpoint.step) == (2, 5)


def test_a_pause_that_is_withdrawn_notifies_nobody(
    client: TestClient, submit: Submit, worker: FakeWorker, notified: Notified
) -> None:
    job_id = submit()["id"]
    worker.claim()
    client.post(f"/v1/jobs/{job_id}/pause")
    notified.tasks.clear()
    answer = client.post(f"/v1/jobs/{job_id}/resume")
    assert (answer.status_code, answer.json()["state"]) == (200, "running")
    assert answer.json()["pause_requested_at"] is None
    assert notified.tasks == []


@pytest.mark.parametrize("verb", ["pause", "resume"])
@pytest.mark.parametrize(
    ("result", "state"),
    [(PermanentFailure("one_class", "One label."), "failed"), (Cancelled(), "cancelled")],
)
def test_a_finished_job_is_neither_paused_nor_resumed(
    client: TestClient,
    submit: Submit,
    worker: FakeWorker,
    verb: str,
    result: PermanentFailure | Cancelled,
    state: str,
) -> None:
    job_id = submit()["id"]
    worker.finish(worker.claim().lease, result)
    before = client.get(f"/v1/jobs/{job_id}").json()
    refused = client.post(f"/v1/jobs/{job_id}/{verb}")
    assert (refused.status_code, refused.json()["code"]) == (409, "job_finished")
    assert f"is {state}" in refused.json()["detail"]
    assert client.get(f"/v1/jobs/{job_id}").json() == before


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_job_that_is_being_cancelled_is_neither_paused_nor_resumed(
    client: TestClient, submit: Submit, worker: FakeWorker, verb: str
) -> None:
    job_id = submit()["id"]
    lease = worker.claim().lease
    if verb == "resume":
        client.post(f"/v1/jobs/{job_id}/pause")
    client.post(f"/v1/jobs/{job_id}/cancel")
    before = client.get(f"/v1/jobs/{job_id}").json()
    refused = client.post(f"/v1/jobs/{job_id}/{verb}")
    assert (refused.status_code, refused.json()["code"]) == (409, "job_cancelling")
    assert client.get(f"/v1/jobs/{job_id}").json() == before
    worker.finish(lease, Paused())
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_a_paused_job_can_be_cancelled_but_not_deleted_or_retried(
    client: TestClient, submit: Submit
) -> None:
    job_id = submit()["id"]
    client.post(f"/v1/jobs/{job_id}/pause")
    for refused in (client.delete(f"/v1/jobs/{job_id}"), client.post(f"/v1/jobs/{job_id}/retry")):
        assert (refused.status_code, refused.json()["code"]) == (409, "job_not_finished")
    answer = client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["paused"]) == ("cancelled", False)
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204


@pytest.mark.parametrize(
    ("ran", "message"),
    [(False, "cancelled before it ran."), (True, "cancelled in the queue.")],
)
def test_the_event_of_a_cancelled_job_says_whether_it_ran(
    client: TestClient, submit: Submit, worker: FakeWorker, ran: bool, message: str
) -> None:
    job_id = submit()["id"]
    lease = worker.claim().lease if ran else None
    client.post(f"/v1/jobs/{job_id}/pause")
    if lease is not None:
        worker.finish(lease, Paused())
    client.post(f"/v1/jobs/{job_id}/cancel")
    last = client.get(f"/v1/jobs/{job_id}/events").json()["data"][-1]
    assert (last["kind"], last["message"]) == ("cancelled", f"The job was {message}")


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_trials_and_prediction_runs_are_refused_unchanged(
    client: TestClient, submit: Submit, database: Database, verb: str
) -> None:
    sweep_id = uuid4()
    for columns, code, hint in (
        ({"sweep_id": sweep_id}, "trial_not_paused", f"/v1/sweeps/{sweep_id}/pause"),
        ({"kind": JobKind.PREDICTION}, "prediction_run_not_paused", "/v1/predictions/"),
    ):
        job_id = UUID(submit()["id"])
        update_job(database, job_id, **columns)
        before = row_of(get_job(database, job_id))
        refused = client.post(f"/v1/jobs/{job_id}/{verb}")
        assert (refused.status_code, refused.json()["code"]) == (409, code)
        assert hint in refused.json()["detail"]
        assert row_of(get_job(database, job_id)) == before
        with database.read() as session:
            written = select(JobEvent.kind).where(JobEvent.job_id == job_id)
            assert list(session.scalars(written)) == ["queued"]


def row_of(job: Job) -> dict[str, Any]:
    return {column.key: getattr(job, column.key) for column in Job.__mapper__.column_attrs}


@pytest.mark.parametrize("verb", ["pause", "resume"])
@pytest.mark.parametrize("job_id", [str(UUID(int=1)), "nonsense", "0" * 400])
def test_an_unknown_job_is_not_found(client: TestClient, verb: str, job_id: str) -> None:
    refused = client.post(f"/v1/jobs/{job_id}/{verb}")
    assert (refused.status_code, refused.json()["code"]) == (404, "job_not_found")


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_key_needs_the_scope_to_write_jobs(
    anonymous_client: TestClient, new_key: Callable[..., Any], verb: str
) -> None:
    headers = {"Authorization": f"Bearer {new_key('jobs:read').text}"}
    path = f"/v1/jobs/{uuid4()}/{verb}"
    assert anonymous_client.post(path).status_code == 401
    assert anonymous_client.post(path, headers=headers).status_code == 403


@on_both_databases
def test_the_dataset_of_a_paused_job_is_not_deleted(
    client: TestClient, submit: Submit, upload: Callable[..., UUID]
) -> None:
    upload("mails")
    job_id = submit(data={"source": "mails"})["id"]
    client.post(f"/v1/jobs/{job_id}/pause")
    refused = client.delete("/v1/datasets/mails:1")
    assert (refused.status_code, refused.json()["code"]) == (409, "dataset_in_use")
