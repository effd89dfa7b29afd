"""A linear job with the real process: restarted, it gives the same result."""

import signal
import threading
from pathlib import Path
from uuid import UUID

import pytest

from app.database.base import JsonObject
from app.database.engines import Database
from app.queue.enums import AttemptOutcome, DeviceClass, JobState
from app.resources import Resources
from app.storage import repository as artifacts
from app.storage.store import read_manifest
from app.storage.tables import MODEL_KIND
from lora_core.specs.data import DataSpec
from lora_core.specs.method import LinearSpec
from lora_core.specs.train import TrainSpec
from tests.job_rows import add_job, attempts, claim_next, get_job, get_state
from worker.devices import Slot
from worker.host_health import HostHealthChecker
from worker.job_runner import JobRunner

CPU = Slot("cpu", DeviceClass.CPU)
SPEC = TrainSpec(
    method=LinearSpec(), data=DataSpec(train_size=200, validation_size=50, test_size=50)
)


def add(database: Database) -> UUID:
    spec = SPEC.model_dump(mode="json")
    return add_job(database, method="linear", base="", spec=spec, register_as="words")


def run(resources: Resources) -> None:
    """Claim the next job and run it to its end."""
    runner = JobRunner(
        resources, draining=threading.Event(), host_health=HostHealthChecker(resources)
    )
    runner.run(claim_next(resources.database), CPU)


def made(resources: Resources, job_id: UUID) -> JsonObject:
    """The manifest of what a job made."""
    with resources.database.read() as session:
        artifact = artifacts.find_newest_model_of_job(session, job_id)
    assert artifact is not None
    assert artifact.kind == MODEL_KIND
    return read_manifest(resources.store, artifact.ref, name="it")


@pytest.mark.slow  # the small form is in test_job_runner.py
def test_restarted_linear_job_gives_the_same_result(
    resources: Resources,
    database: Database,
    failpoint_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LORAWORKS_FAULT", f"saving:kill:{failpoint_file}")
    broken = add(database)
    run(resources)
    assert get_state(database, broken) is JobState.QUEUED
    run(resources)
    assert get_state(database, broken) is JobState.SUCCEEDED
    assert [(a.outcome, a.signal, a.first_step) for a in attempts(database, broken)] == [
        (AttemptOutcome.FAILED, signal.SIGKILL, 0),
        (AttemptOutcome.SUCCEEDED, None, 0),
    ]
    uninterrupted = add(database)
    run(resources)
    first, second = made(resources, broken), made(resources, uninterrupted)
    assert first["files"] == second["files"]
    assert first["spec"]["base"] is None
    summary = get_job(database, uninterrupted).summary
    assert summary is not None
    assert summary["model_version"] == "words:2"
