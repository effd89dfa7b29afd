"""A prediction run in the hands of a worker: the real process over a tiny model."""

import hashlib
import json
import signal
import threading
from pathlib import Path
from uuid import UUID

import pytest

from app.database.clock import now
from app.database.engines import Database
from app.predictions import service
from app.queue.states import JobState, Lane, Outcome
from app.resources import Resources
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.tables import RESULTS
from lora_core.prediction.run import CHUNK
from tests.job_rows import attempts, change, job, state, take
from tests.lora_core.prediction.conftest import ROWS, make_texts
from tests.prediction_rows import add_model, add_texts, submit
from tests.tiny_artifact import make_artifact
from tests.waiting import wait_until
from worker import workdir
from worker.devices import Slot
from worker.run_job import JobRunner
from worker.spawn import Warm

CPU = Slot("cpu", Lane.CPU)


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
    return submit(resources)


def run(resources: Resources, draining: threading.Event | None = None) -> None:
    """Claim what waits and run it to its ending."""
    runner = JobRunner(resources, draining=draining or threading.Event())
    runner.run(take(resources.database), CPU, Warm())


def digest(resources: Resources, run_id: UUID) -> str:
    directory, _ = service.results(resources.database, resources.store, run_id=run_id)
    return hashlib.sha256((directory / "results.jsonl").read_bytes()).hexdigest()


def heard_a_stop(pid: int) -> bool:
    """Whether the process has answered a SIGTERM: it then catches no second one."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return not int(caught, 16) >> (signal.SIGTERM - 1) & 1


def held(settings: Settings, hold: Path) -> int:
    """Wait until the process stands at the fault; its number."""
    wait_until(hold.with_name(f"{hold.name}.reached").exists, seconds=60)
    [place] = workdir.found(settings)
    _, pid, _ = json.loads(place.child.read_bytes())
    return int(pid)


@pytest.mark.slow  # the small form is in tests/lora_core/prediction; the next test goes on, too
def test_a_killed_process_is_followed_by_one_that_goes_on_and_nothing_differs(
    resources: Resources,
    database: Database,
    run_id: UUID,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trigger = tmp_path / "trigger"
    trigger.touch()
    monkeypatch.setenv("LORAWORKS_FAULT", f"answered@2:kill:{trigger}")
    run(resources)
    row = job(database, run_id)
    assert (row.state, row.step, row.failures_counted) == (JobState.QUEUED, CHUNK, 1)
    run(resources)
    assert state(database, run_id) is JobState.SUCCEEDED
    assert [(a.outcome, a.signal, a.first_step) for a in attempts(database, run_id)] == [
        (Outcome.FAILED, signal.SIGKILL, 0),
        (Outcome.SUCCEEDED, None, CHUNK),
    ]
    unbroken = submit(resources)
    run(resources)
    assert digest(resources, run_id) == digest(resources, unbroken)


def test_a_drain_gives_the_run_back_and_the_next_leg_leaves_results_and_nothing_else(
    resources: Resources,
    database: Database,
    settings: Settings,
    run_id: UUID,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold, draining = tmp_path / "hold", threading.Event()
    hold.touch()
    monkeypatch.setenv("LORAWORKS_FAULT", f"answered@1:pause:{hold}")
    thread = threading.Thread(target=run, args=(resources, draining))
    thread.start()
    pid = held(settings, hold)
    draining.set()
    wait_until(lambda: heard_a_stop(pid))
    hold.unlink()
    thread.join(60)
    row = job(database, run_id)
    assert (row.state, row.step, row.failures_counted) == (JobState.QUEUED, CHUNK, 0)
    assert attempts(database, run_id)[0].outcome == Outcome.PREEMPTED
    monkeypatch.delenv("LORAWORKS_FAULT")
    run(resources)
    row = job(database, run_id)
    assert (row.state, row.error_message) == (JobState.SUCCEEDED, None)
    assert attempts(database, run_id)[1].first_step == CHUNK
    assert (row.step, row.total_steps) == (ROWS, ROWS)
    assert row.artifact_id is not None
    with database.read() as session:
        artifact = artifacts.get(session, row.artifact_id)
    assert (artifact.kind, artifact.key) == (RESULTS, f"predictions/{run_id}/a2")
    directory, facts = service.results(database, resources.store, run_id=run_id)
    assert facts["metrics"] == row.summary
    assert facts["spec"]["model"] == "sentiment:1"
    assert facts["spec"]["data"]["source"] == "texts:1"
    assert len((directory / "results.jsonl").read_text().splitlines()) == ROWS
    assert list(workdir.found(settings)) == []


@pytest.mark.slow  # the process leaves as after a drain, the job ends as in test_run_job.py
def test_a_cancel_ends_the_run_without_results(
    resources: Resources,
    database: Database,
    settings: Settings,
    run_id: UUID,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    monkeypatch.setenv("LORAWORKS_FAULT", f"answered@1:pause:{hold}")
    thread = threading.Thread(target=run, args=(resources,))
    thread.start()
    pid = held(settings, hold)
    change(database, run_id, cancel_requested_at=now())
    wait_until(lambda: heard_a_stop(pid))
    hold.unlink()
    thread.join(60)
    row = job(database, run_id)
    assert (row.state, row.artifact_id) == (JobState.CANCELLED, None)


def test_a_model_that_was_deleted_meanwhile_is_the_error(
    resources: Resources, database: Database, run_id: UUID
) -> None:
    change(database, run_id, spec={**job(database, run_id).spec, "model": "sentiment:9"})
    run(resources)
    row = job(database, run_id)
    assert (row.state, row.error_code) == (JobState.FAILED, "model_not_found")


@pytest.mark.slow  # the error is in tests/lora_core/data/test_table.py, the name in test_inputs.py
def test_an_error_in_the_file_names_it_as_users_do(
    resources: Resources, database: Database, tmp_path: Path
) -> None:
    """Such as in one that was uploaded to train on, where no other column is looked at."""
    file = tmp_path / "labelled.csv"
    file.write_text("body,predicted_label\na,b\n")
    add_texts(resources, file, rows=1, name="labelled")
    run_id = submit(resources, dataset="labelled")
    run(resources)
    row = job(database, run_id)
    assert (row.state, row.error_code) == (JobState.FAILED, "column_taken")
    assert row.error_message is not None
    assert row.error_message.startswith("labelled:1 has a column 'predicted_label'")
