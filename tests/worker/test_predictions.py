"""A prediction run with the real process and a tiny model."""

import hashlib
import json
import signal
import threading
from pathlib import Path
from uuid import UUID

import pytest

from app.database.base import now
from app.database.engines import Database
from app.predictions import service
from app.queue.enums import AttemptOutcome, DeviceClass, JobState
from app.resources import Resources
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.tables import RESULTS_KIND
from lora_core.batch_prediction import CHUNK_ROWS
from tests.job_rows import attempts, claim_next, get_job, get_state, update_job
from tests.lora_core.batch_prediction.conftest import ROWS, make_texts
from tests.prediction_rows import add_model, add_texts, create_run
from tests.tiny_artifact import make_artifact
from tests.waiting import wait_until
from worker import workdir
from worker.devices import Slot
from worker.host_health import HostHealthChecker
from worker.job_runner import JobRunner

CPU = Slot("cpu", DeviceClass.CPU)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"checkpoint_seconds": 0, "stop_grace_seconds": 30})


@pytest.fixture(autouse=True)
def _texts_and_model(resources: Resources, tmp_path: Path) -> None:
    add_model(resources, make_artifact(tmp_path / "model"))
    make_texts(tmp_path / "texts.csv")
    add_texts(resources, tmp_path / "texts.csv", rows=ROWS)


@pytest.fixture
def run_id(resources: Resources) -> UUID:
    return create_run(resources)


def run(resources: Resources, draining: threading.Event | None = None) -> None:
    """Claim the next job and run it to its end."""
    runner = JobRunner(
        resources, draining=draining or threading.Event(), host_health=HostHealthChecker(resources)
    )
    runner.run(claim_next(resources.database), CPU)


def digest(resources: Resources, run_id: UUID) -> str:
    directory = service.get_verified_results(
        resources.database, resources.store, run_id=run_id
    ).directory
    return hashlib.sha256((directory / "results.jsonl").read_bytes()).hexdigest()


def sigterm_is_caught(pid: int) -> bool:
    """Whether the process has answered a SIGTERM: it then catches no second one."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return not int(caught, 16) >> (signal.SIGTERM - 1) & 1


def wait_for_failpoint(settings: Settings, hold: Path) -> int:
    """Wait until the process reaches the failpoint; returns its PID."""
    wait_until(hold.with_name(f"{hold.name}.reached").exists, seconds=60)
    [place] = workdir.list_attempt_dirs(settings)
    _, pid, _ = json.loads(place.pid_file.read_bytes())
    return int(pid)


@pytest.mark.slow  # the small form is in tests/lora_core/batch_prediction
def test_resumed_prediction_run_gives_the_same_results(
    resources: Resources,
    database: Database,
    run_id: UUID,
    failpoint_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LORAWORKS_FAULT", f"answered@2:kill:{failpoint_file}")
    run(resources)
    row = get_job(database, run_id)
    assert (row.state, row.step, row.failures_counted) == (JobState.QUEUED, CHUNK_ROWS, 1)
    run(resources)
    assert get_state(database, run_id) is JobState.SUCCEEDED
    assert [(a.outcome, a.signal, a.first_step) for a in attempts(database, run_id)] == [
        (AttemptOutcome.FAILED, signal.SIGKILL, 0),
        (AttemptOutcome.SUCCEEDED, None, CHUNK_ROWS),
    ]
    uninterrupted = create_run(resources)
    run(resources)
    assert digest(resources, run_id) == digest(resources, uninterrupted)


@pytest.mark.slow  # the small form is in tests/lora_core/batch_prediction
def test_drained_prediction_run_is_resumed(
    resources: Resources,
    database: Database,
    settings: Settings,
    run_id: UUID,
    failpoint_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draining = threading.Event()
    monkeypatch.setenv("LORAWORKS_FAULT", f"answered@1:pause:{failpoint_file}")
    thread = threading.Thread(target=run, args=(resources, draining))
    thread.start()
    pid = wait_for_failpoint(settings, failpoint_file)
    draining.set()
    wait_until(lambda: sigterm_is_caught(pid))
    failpoint_file.unlink()
    thread.join(60)
    row = get_job(database, run_id)
    assert (row.state, row.step, row.failures_counted) == (JobState.QUEUED, CHUNK_ROWS, 0)
    assert attempts(database, run_id)[0].outcome == AttemptOutcome.PREEMPTED
    monkeypatch.delenv("LORAWORKS_FAULT")
    run(resources)
    row = get_job(database, run_id)
    assert (row.state, row.error_message) == (JobState.SUCCEEDED, None)
    assert attempts(database, run_id)[1].first_step == CHUNK_ROWS
    assert (row.step, row.total_steps) == (ROWS, ROWS)
    assert row.artifact_id is not None
    with database.read() as session:
        artifact = artifacts.get_artifact(session, row.artifact_id)
    assert (artifact.kind, artifact.key) == (RESULTS_KIND, f"predictions/{run_id}/a2")
    results = service.get_verified_results(database, resources.store, run_id=run_id)
    assert results.manifest["metrics"] == row.summary
    assert results.manifest["spec"]["model"] == "sentiment:1"
    assert results.manifest["spec"]["data"]["source"] == "texts:1"
    assert len((results.directory / "results.jsonl").read_text().splitlines()) == ROWS
    assert list(workdir.list_attempt_dirs(settings)) == []


@pytest.mark.slow  # the process leaves as after a drain, the job ends as in test_run_job.py
def test_a_cancel_ends_the_run_without_results(
    resources: Resources,
    database: Database,
    settings: Settings,
    run_id: UUID,
    failpoint_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LORAWORKS_FAULT", f"answered@1:pause:{failpoint_file}")
    thread = threading.Thread(target=run, args=(resources,))
    thread.start()
    pid = wait_for_failpoint(settings, failpoint_file)
    update_job(database, run_id, cancel_requested_at=now())
    wait_until(lambda: sigterm_is_caught(pid))
    failpoint_file.unlink()
    thread.join(60)
    row = get_job(database, run_id)
    assert (row.state, row.artifact_id) == (JobState.CANCELLED, None)


def test_deleted_model_fails_the_run(
    resources: Resources, database: Database, run_id: UUID
) -> None:
    update_job(database, run_id, spec={**get_job(database, run_id).spec, "model": "sentiment:9"})
    run(resources)
    row = get_job(database, run_id)
    assert (row.state, row.error_code) == (JobState.FAILED, "model_not_found")


@pytest.mark.slow  # the error is in tests/lora_core/data/test_table.py, the name in test_inputs.py
def test_file_error_uses_the_public_name(
    resources: Resources, database: Database, tmp_path: Path
) -> None:
    """Such as in one that was uploaded to train on, where no other column is looked at."""
    file = tmp_path / "labeled.csv"
    file.write_text("body,predicted_label\na,b\n")
    add_texts(resources, file, rows=1, name="labeled")
    run_id = create_run(resources, dataset="labeled")
    run(resources)
    row = get_job(database, run_id)
    assert (row.state, row.error_code) == (JobState.FAILED, "reserved_column")
    assert row.error_message is not None
    assert row.error_message.startswith("labeled:1 has a column 'predicted_label'")
