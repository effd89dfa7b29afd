"""What a training made is published in one piece, or not at all."""

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
from app.queue.states import JobState
from app.registry import service as registry
from app.resources import Resources
from app.storage.tables import Artifact
from tests.job_rows import SPEC, add_job, give_back, job, state, take
from tests.worker.scripted import scripted
from tests.worker.test_inputs import upload
from tests.worker.test_run_job import CPU, GOOD, SUMMARY, run, stored
from worker.run_job import JobRunner
from worker.spawn import Warm


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_job(database)


def test_a_job_with_a_model_name_becomes_its_next_version(
    resources: Resources, database: Database
) -> None:
    for number in (1, 2):
        job_id = add_job(database, register_as="sentiment")
        run(resources, *GOOD)
        summary = job(database, job_id).summary
        assert summary == {**SUMMARY, "model_version": f"sentiment:{number}"}
        with database.read() as session:
            version = registry.resolve(session, f"sentiment:{number}")
        assert version.artifact.key == f"jobs/{job_id}/a1"


@pytest.mark.parametrize("uploaded", [False, True])
def test_an_artifact_that_does_not_match_its_manifest_is_not_stored(
    resources: Resources, database: Database, uploaded: bool
) -> None:
    """Nor if the manifest was written again, with the public names of its inputs."""
    ids = {"all": str(upload(resources, "reviews").id)} if uploaded else {}
    spec = {**SPEC, "data": {**SPEC["data"], "source": "reviews:1"}} if uploaded else SPEC
    job_id = add_job(database, spec=spec, dataset_ids=ids)
    run(resources, *GOOD, "damage")
    row = job(database, job_id)
    assert (row.state, row.error_code, row.artifact_id) == (
        JobState.FAILED,
        "artifact_corrupt",
        None,
    )
    assert stored(resources) == []


def test_an_exit_without_an_artifact_is_no_success(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    run(resources, "exit:0")
    assert job(database, job_id).error_code == "artifact_corrupt"


def test_a_store_without_room_makes_the_job_wait(
    resources: Resources, database: Database, job_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(directory: Path, key: str) -> Any:
        raise OSError(errno.ENOSPC, f"no room for {key}", str(directory))

    monkeypatch.setattr(resources.store, "put", full)
    run(resources, *GOOD)
    row = job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 0)
    assert row.waiting_code == "storage_unavailable"


def test_success_that_comes_too_late_makes_nothing_count(
    resources: Resources, database: Database, job_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job is lost between the end of the training and the last transaction."""
    claimed = take(database)
    real = resources.store.put

    def put(directory: Path, key: str) -> Any:
        ref = real(directory, key)
        give_back(database, claimed.lease)
        return ref

    monkeypatch.setattr(resources.store, "put", put)
    scripted(*GOOD)
    JobRunner(resources, draining=threading.Event()).run(claimed, CPU, Warm())
    assert state(database, job_id) is JobState.QUEUED
    with database.read() as session:
        assert session.scalars(select(Artifact)).all() == []


@pytest.mark.parametrize(
    ("actions", "ending", "word"),
    [
        (GOOD, JobState.SUCCEEDED, "the attempt succeeded"),
        (("failed:one_class", "exit:65"), JobState.FAILED, "the attempt ended"),
        (("signal:11",), JobState.QUEUED, "the attempt ended"),
    ],
)
def test_a_commit_of_which_no_answer_came_is_not_taken_for_a_lost_job(
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
        if not broken and state(database, job_id) is ending:
            broken.append(True)
            raise OperationalError("COMMIT", {}, Exception("the connection is gone"))

    monkeypatch.setattr(Session, "commit", commit)
    with structlog.testing.capture_logs() as logs:
        run(resources, *actions)
    assert broken
    assert state(database, job_id) is ending
    assert len(stored(resources)) == (ending is JobState.SUCCEEDED)
    words = [line["event"] for line in logs]
    assert word in words
    assert not [word for word in words if "fenced" in word]
