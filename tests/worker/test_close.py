"""What a training made is published in one piece, or not at all."""

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.artifacts.tables import Artifact
from app.db.engines import Database
from app.jobs.states import JobState
from app.registry import service as registry
from app.resources import Resources
from tests.job_rows import add_job, give_back, job, state, take
from tests.worker.scripted import scripted
from tests.worker.test_run_job import GOOD, SUMMARY, run, stored
from worker.run_job import JobRunner


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
        assert version.artifact_key == f"jobs/{job_id}/a1"


def test_an_artifact_that_does_not_match_its_manifest_is_not_stored(
    resources: Resources, database: Database, job_id: UUID
) -> None:
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


def test_a_store_without_room_fails_the_job_with_its_own_code(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    class FullStore:
        def put(self, directory: Path, key: str) -> Any:
            raise OSError(errno.ENOSPC, f"no room for {key}", str(directory))

        def path(self, key: str) -> Path:
            raise AssertionError(key)

        def delete(self, key: str) -> None:
            raise AssertionError(key)

    run(Resources(resources.settings, database, FullStore(), resources.queue), *GOOD)
    row = job(database, job_id)
    assert (row.state, row.error_code) == (JobState.FAILED, "disk_full")


def test_success_that_comes_too_late_leaves_no_files(
    resources: Resources, database: Database, job_id: UUID
) -> None:
    """The job is lost between the end of the training and the last transaction."""
    lose: list[Callable[[], None]] = []

    class LosingStore:
        def put(self, directory: Path, key: str) -> Any:
            ref = resources.store.put(directory, key)
            lose.pop()()
            return ref

        path = resources.store.path
        delete = resources.store.delete

    claimed = take(database)
    lose.append(lambda: give_back(database, claimed.lease))
    slow = Resources(resources.settings, database, LosingStore(), resources.queue)
    JobRunner(slow, scripted(*GOOD), draining=threading.Event()).run(claimed)
    assert state(database, job_id) is JobState.QUEUED
    assert stored(resources) == []
    with database.read() as session:
        assert session.scalars(select(Artifact)).all() == []
