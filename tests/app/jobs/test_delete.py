"""Deleting jobs, and what happens to their artifacts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.database.engines import Database
from app.queue.tables import Attempt, JobEvent, MetricPoint
from app.queue.transitions import PermanentFailure, Succeeded
from app.registry import service as registry
from app.resources import Resources
from app.storage import repository as artifacts
from app.storage.tables import Artifact
from lora_core import manifest
from tests.app.jobs.fake_worker import FakeWorker
from tests.job_rows import MANIFEST

Submit = Callable[..., dict[str, Any]]
Succeed = Callable[..., tuple[Artifact, Path]]


@pytest.fixture
def succeed(worker: FakeWorker, resources: Resources, tmp_path: Path) -> Succeed:
    """Return a function that finishes the next job with an artifact, as a worker does."""

    def finish(register_as: str | None = None) -> tuple[Artifact, Path]:
        lease = worker.claim().lease
        worker.log(lease, step=1, points={"loss": 1.0})
        directory = tmp_path / "out"
        directory.mkdir()
        manifest.create_and_save(directory, {})
        ref = resources.store.move_directory_into_store(directory, f"jobs/{lease.job_id}/a1")
        with resources.database.write() as session:
            made = artifacts.add_artifact(session, job_id=lease.job_id, kind="model", ref=ref)
            if register_as is not None:
                registry.add_version(session, name=register_as, artifact=made, manifest=MANIFEST)
        worker.finish(lease, Succeeded(made.id, {"model_version": "mails:1"}))
        return made, resources.store.local_directory(ref)

    return finish


def rows(database: Database, *tables: type) -> list[int]:
    with database.read() as session:
        return [session.scalars(select(func.count()).select_from(t)).one() for t in tables]


def test_deleting_a_job_deletes_its_curves_and_files(
    client: TestClient, submit: Submit, succeed: Succeed, database: Database
) -> None:
    job_id = submit()["id"]
    _, files = succeed()
    assert client.get(f"/v1/jobs/{job_id}").json()["artifact_id"] is not None

    answer = client.delete(f"/v1/jobs/{job_id}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert client.get(f"/v1/jobs/{job_id}").status_code == 404
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 404
    assert not files.exists()
    assert rows(database, JobEvent, MetricPoint, Attempt, Artifact) == [0, 0, 0, 0]


def test_an_artifact_used_by_a_model_version_is_kept(
    client: TestClient, submit: Submit, succeed: Succeed, database: Database
) -> None:
    job_id = submit(register_as="mails")["id"]
    made, files = succeed(register_as="mails")
    assert client.get(f"/v1/jobs/{job_id}").json()["model_version"] == "mails:1"
    other = submit()["id"]

    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204

    assert files.is_dir()
    with database.read() as session:
        assert registry.resolve_model(session, "mails:1").artifact == made.ref
    assert [job["id"] for job in client.get("/v1/jobs").json()["data"]] == [other]


def test_the_artifact_of_a_deleted_job_goes_with_its_last_version(
    client: TestClient, submit: Submit, succeed: Succeed, database: Database
) -> None:
    job_id = submit(register_as="mails")["id"]
    _, files = succeed(register_as="mails")
    client.delete(f"/v1/jobs/{job_id}")
    assert client.delete("/v1/models/mails/versions/1").status_code == 204
    assert not files.exists()
    assert rows(database, Artifact) == [0]


def test_a_job_keeps_its_artifact_when_the_version_is_deleted(
    client: TestClient, submit: Submit, succeed: Succeed
) -> None:
    job_id = submit(register_as="mails")["id"]
    made, files = succeed(register_as="mails")
    assert client.delete("/v1/models/mails").status_code == 204
    assert files.is_dir()
    assert client.get(f"/v1/jobs/{job_id}").json()["artifact_id"] == str(made.id)


def test_an_unfinished_job_cannot_be_deleted(
    client: TestClient, submit: Submit, worker: FakeWorker
) -> None:
    job_id = submit()["id"]

    def refused(state: str) -> None:
        answer = client.delete(f"/v1/jobs/{job_id}")
        assert (answer.status_code, answer.json()["code"]) == (409, "job_not_finished")
        assert state in answer.json()["detail"]

    refused("queued")
    lease = worker.claim().lease
    refused("running")
    worker.finish(lease, PermanentFailure("crash", "It crashed."))
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204
