"""The output of a training is published atomically."""

import errno
import threading
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.database.engines import Database
from app.queue.enums import JobState
from app.registry import service as registry
from app.resources import Resources
from app.storage.tables import Artifact
from tests.job_rows import SPEC, add_job, claim_next, get_job, get_state, preempt
from tests.worker.scripted import scripted
from tests.worker.test_inputs import upload
from tests.worker.test_job_runner import CPU, GOOD, SUMMARY, run, stored
from worker.failures import LEASE_LOST_MESSAGE
from worker.host_health import HostHealthChecker
from worker.job_runner import JobRunner


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_job(database)


def test_job_with_register_as_creates_a_version(resources: Resources, database: Database) -> None:
    for number in (1, 2):
        job_id = add_job(database, register_as="sentiment")
        run(resources, *GOOD)
        summary = get_job(database, job_id).summary
        assert summary == {**SUMMARY, "model_version": f"sentiment:{number}"}
        with database.read() as session:
            version = registry.resolve_model(session, f"sentiment:{number}")
        assert version.artifact.key == f"jobs/{job_id}/a1"


def test_registered_and_promoted_version_is_audited(
    resources: Resources, database: Database
) -> None:
    job_id = add_job(database, register_as="sentiment", promote_to="production")
    with structlog.testing.capture_logs() as logs:
        run(resources, *GOOD)
    lines = [line for line in logs if line["event"] == "audit"]
    common = {"event": "audit", "log_level": "info", "model": "sentiment:1", "job_id": str(job_id)}
    assert lines == [
        common | {"action": "version_registered"},
        common | {"action": "alias_moved", "alias": "production", "back": False},
    ]


def test_base_is_stored_once_for_all_jobs(resources: Resources, database: Database) -> None:
    jobs = [add_job(database, register_as="sentiment") for _ in range(3)]
    for content in ("one", "one", "other"):
        run(resources, *GOOD[:-1], f"adapter:{content}")
    with database.read() as session:
        refs = [registry.resolve_model(session, f"sentiment:{i}").artifact for i in (1, 2, 3)]
    bases = [ref.base.key for ref in refs if ref.base is not None]
    assert bases == [f"bases/{jobs[i]}/a1" for i in (0, 0, 2)]
    assert [ref.key for ref in refs] == [f"jobs/{job_id}/a1" for job_id in jobs]
    assert len(stored(resources)) == 5
    assert all(get_state(database, job_id) is JobState.SUCCEEDED for job_id in jobs)


@pytest.mark.parametrize("uploaded", [False, True])
def test_artifact_not_matching_its_manifest_is_rejected(
    resources: Resources, database: Database, uploaded: bool
) -> None:
    """Not even if the manifest was rewritten with the public names of the inputs."""
    ids = {"all": str(upload(resources, "reviews").id)} if uploaded else {}
    spec = {**SPEC, "data": {**SPEC["data"], "source": "reviews:1"}} if uploaded else SPEC
    job_id = add_job(database, spec=spec, dataset_ids=ids)
    run(resources, *GOOD, "damage")
    row = get_job(database, job_id)
    assert (row.state, row.error_code, row.artifact_id) == (
        JobState.FAILED,
        "artifact_corrupt",
        None,
    )
    assert stored(resources) == []


def test_exit_without_artifact_is_a_failure(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    run(resources, "exit:0")
    assert get_job(database, job_id).error_code == "artifact_corrupt"


def test_full_store_makes_the_job_wait(
    resources: Resources, database: Database, job_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(directory: Path, key: str) -> Any:
        raise OSError(errno.ENOSPC, f"no room for {key}", str(directory))

    monkeypatch.setattr(resources.store, "move_directory_into_store", full)
    run(resources, *GOOD)
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 0)
    assert row.waiting_code == "storage_unavailable"


@pytest.mark.parametrize(
    ("actions", "stored_last"),
    [(GOOD, "jobs/"), ((*GOOD[:-1], "adapter:one"), "bases/")],
    ids=["model", "base"],
)
def test_late_success_publishes_nothing(
    resources: Resources,
    database: Database,
    job_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
    actions: tuple[str, ...],
    stored_last: str,
) -> None:
    """The lease is lost between the end of the training and the last transaction."""
    claimed = claim_next(database)
    real = resources.store.move_directory_into_store

    def put(directory: Path, key: str) -> Any:
        ref = real(directory, key)
        if key.startswith(stored_last):
            preempt(database, claimed.lease)
        return ref

    monkeypatch.setattr(resources.store, "move_directory_into_store", put)
    scripted(*actions)
    JobRunner(resources, draining=threading.Event(), host_health=HostHealthChecker(resources)).run(
        claimed, CPU
    )
    assert get_state(database, job_id) is JobState.QUEUED
    with database.read() as session:
        assert session.scalars(select(Artifact)).all() == []


@pytest.mark.parametrize(
    ("actions", "ending", "word"),
    [
        (GOOD, JobState.SUCCEEDED, "attempt succeeded"),
        pytest.param(  # with correctness
            ("started:5", "trial"), JobState.SUCCEEDED, "attempt succeeded", marks=pytest.mark.slow
        ),
        (("failed:one_class", "exit:65"), JobState.FAILED, "attempt finished"),
        (("signal:11",), JobState.QUEUED, "attempt finished"),
    ],
)
def test_commit_without_response_is_not_a_lost_lease(
    resources: Resources,
    database: Database,
    job_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
    actions: tuple[str, ...],
    ending: JobState,
    word: str,
) -> None:
    real = Session.commit
    broken: list[bool] = []

    def commit(session: Session) -> None:
        real(session)
        if not broken and get_state(database, job_id) is ending:
            broken.append(True)
            raise OperationalError("COMMIT", {}, Exception("the connection is gone"))

    monkeypatch.setattr(Session, "commit", commit)
    with structlog.testing.capture_logs() as logs:
        run(resources, *actions)
    assert broken
    assert get_state(database, job_id) is ending
    assert len(stored(resources)) == (ending is JobState.SUCCEEDED)
    words = [line["event"] for line in logs]
    assert word in words
    assert LEASE_LOST_MESSAGE not in words
