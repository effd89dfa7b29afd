"""A linear job in the hands of a worker: the real process. It begins anew, and nothing differs."""

import signal
import threading
from pathlib import Path
from uuid import UUID

import pytest

from app.database.base import JsonObject
from app.database.engines import Database
from app.queue.states import JobState, Lane, Outcome
from app.resources import Resources
from app.storage import repository as artifacts
from app.storage.archive import described
from app.storage.tables import MODEL
from lora_core.specs.data import DataSpec
from lora_core.specs.method import LinearSpec
from lora_core.specs.train import TrainSpec
from tests.job_rows import add_job, attempts, job, state, take
from worker.devices import Slot
from worker.run_job import JobRunner
from worker.spawn import Warm

CPU = Slot("cpu", Lane.CPU)
SPEC = TrainSpec(
    method=LinearSpec(), data=DataSpec(train_size=200, validation_size=50, test_size=50)
)


def add(database: Database) -> UUID:
    spec = SPEC.model_dump(mode="json")
    return add_job(database, method="linear", base="", spec=spec, register_as="words")


def run(resources: Resources) -> None:
    """Claim what waits and run it to its ending."""
    runner = JobRunner(resources, draining=threading.Event())
    runner.run(take(resources.database), CPU, Warm())


def made(resources: Resources, job_id: UUID) -> JsonObject:
    """The manifest of what a job made."""
    with resources.database.read() as session:
        artifact = artifacts.by_job(session, job_id)
    assert artifact is not None
    assert artifact.kind == MODEL
    return described(resources.store, artifact.ref, name="it")


def test_a_killed_process_is_followed_by_one_that_begins_anew_and_nothing_differs(
    resources: Resources, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trigger = tmp_path / "trigger"
    trigger.touch()
    monkeypatch.setenv("LORAWORKS_FAULT", f"saving:kill:{trigger}")
    broken = add(database)
    run(resources)
    assert state(database, broken) is JobState.QUEUED
    run(resources)
    assert state(database, broken) is JobState.SUCCEEDED
    assert [(a.outcome, a.signal, a.first_step) for a in attempts(database, broken)] == [
        (Outcome.FAILED, signal.SIGKILL, 0),
        (Outcome.SUCCEEDED, None, 0),
    ]
    unbroken = add(database)
    run(resources)
    first, second = made(resources, broken), made(resources, unbroken)
    assert first["files"] == second["files"]
    assert first["spec"]["base"] is None
    summary = job(database, unbroken).summary
    assert summary is not None
    assert summary["model_version"] == "words:2"
