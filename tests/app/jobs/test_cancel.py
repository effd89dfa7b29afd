"""Cancel requests, also while a worker changes the job."""

from collections.abc import Callable
from threading import Barrier, Thread
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient

from app.database.engines import Database
from app.queue import leases
from app.queue.enums import DeviceClass
from app.queue.transitions import Cancelled, PermanentFailure, Preempted, Succeeded
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from tests.app.jobs.fake_worker import FakeWorker

Submit = Callable[..., dict[str, Any]]


def kinds(client: TestClient, job_id: str) -> list[str]:
    return [event["kind"] for event in client.get(f"/v1/jobs/{job_id}/events").json()["data"]]


def test_a_queued_job_is_cancelled_at_once(
    client: TestClient, submit: Submit, database: Database, worker: FakeWorker
) -> None:
    job_id = submit()["id"]
    answer = client.post(f"/v1/jobs/{job_id}/cancel")
    assert answer.status_code == 200
    job = answer.json()
    assert (job["state"], job["queue_position"]) == ("cancelled", None)
    assert job["finished_at"] is not None
    assert kinds(client, job_id) == ["queued", "cancelled"]
    with database.write() as session:
        claimed = leases.claim_job(
            session,
            owner=worker.owner,
            device_class=DeviceClass.CPU,
            device="cpu",
            lease_seconds=60,
        )
        assert claimed is None


def test_a_cancel_request_to_a_running_job_is_recorded_once(
    client: TestClient, submit: Submit, worker: FakeWorker
) -> None:
    job_id = submit()["id"]
    lease = worker.claim().lease
    first = client.post(f"/v1/jobs/{job_id}/cancel")
    again = client.post(f"/v1/jobs/{job_id}/cancel")
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json()["state"] == "running"
    assert first.json()["cancel_requested_at"] is not None
    assert again.json() == first.json()
    assert kinds(client, job_id) == ["queued", "started", "cancel_requested"]

    worker.finish(lease, Cancelled())
    done = client.post(f"/v1/jobs/{job_id}/cancel")
    assert (done.status_code, done.json()["state"]) == (200, "cancelled")


@pytest.mark.parametrize("ending", [Preempted(), Cancelled()])
def test_a_job_with_a_cancel_request_is_never_requeued(
    client: TestClient, submit: Submit, worker: FakeWorker, ending: Preempted | Cancelled
) -> None:
    job_id = submit()["id"]
    lease = worker.claim().lease
    client.post(f"/v1/jobs/{job_id}/cancel")
    worker.finish(lease, ending)
    assert client.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"


def test_a_finished_job_stays_as_it_is(
    client: TestClient, submit: Submit, worker: FakeWorker
) -> None:
    job_id = submit()["id"]
    worker.finish(worker.claim().lease, PermanentFailure("one_class", "Only one label."))
    before = client.get(f"/v1/jobs/{job_id}").json()
    answer = client.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()) == (200, before)
    assert kinds(client, job_id) == ["queued", "started", "failed"]


def test_success_before_the_cancel_wins(
    client: TestClient, submit: Submit, worker: FakeWorker, database: Database
) -> None:
    job_id = submit()["id"]
    lease = worker.claim().lease
    client.post(f"/v1/jobs/{job_id}/cancel")
    with database.write() as session:
        ref = ArtifactRef(f"jobs/{uuid4()}", "0" * 64, 1)
        made = artifacts.add_artifact(session, job_id=lease.job_id, kind="model", ref=ref)
        leases.finish_attempt(session, lease, Succeeded(made.id, {}))
    answer = client.post(f"/v1/jobs/{job_id}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")


def test_concurrent_cancel_and_claim_leave_a_consistent_state(
    client: TestClient, submit: Submit, worker: FakeWorker, database: Database
) -> None:
    for _ in range(15):
        job_id = submit()["id"]
        start = Barrier(2)
        claimed: list[UUID] = []

        def claim(start: Barrier = start, claimed: list[UUID] = claimed) -> None:
            start.wait()
            with database.write() as session:
                found = leases.claim_job(
                    session,
                    owner=worker.owner,
                    device_class=DeviceClass.CPU,
                    device="cpu",
                    lease_seconds=60,
                )
            if found is not None:
                claimed.append(found.lease.job_id)

        thread = Thread(target=claim)
        thread.start()
        start.wait()
        answer = client.post(f"/v1/jobs/{job_id}/cancel")
        thread.join()

        job = client.get(f"/v1/jobs/{job_id}").json()
        assert job["cancel_requested_at"] is not None
        if claimed:
            assert (answer.status_code, job["state"], job["attempt"]) == (202, "running", 1)
        else:
            assert (answer.status_code, job["state"], job["attempt"]) == (200, "cancelled", 0)
