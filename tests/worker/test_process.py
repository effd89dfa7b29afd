"""Real worker processes: killed, suspended, orphaned, and drained."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import update

from app.database.engines import Database
from app.queue.enums import AttemptOutcome, JobState
from app.queue.tables import Job
from app.settings import Settings
from tests.job_rows import add_job, attempts, dump_tables, events, get_job, get_state
from tests.waiting import put_to_sleep, wait_until
from tests.worker.test_job_runner import GOOD
from worker import process_identity, workdir

pytestmark = pytest.mark.e2e

Start = Callable[..., subprocess.Popen[bytes]]
NOT_IN_TIME, BAD_SETTINGS = 1, 78


def environment(settings: Settings, **changes: object) -> dict[str, str]:
    """Quick settings on the same data."""
    quick: dict[str, object] = {
        "data_dir": settings.data_dir,
        "database_url": settings.sqlalchemy_url,
        "poll_seconds": 0.05,
        "heartbeat_seconds": 0.2,
        "lease_seconds": 30,
        "reconcile_seconds": 0.2,
        "retry_seconds": 0,
        "min_free_bytes": 0,
        **changes,
    }
    return os.environ | {f"LORAWORKS_{name.upper()}": str(each) for name, each in quick.items()}


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Start]:
    script = Path(__file__).with_name("worker_process.py")
    started: list[subprocess.Popen[bytes]] = []

    def begin(*actions: str, **changes: object) -> subprocess.Popen[bytes]:
        with (tmp_path / "worker.log").open("ab") as log:
            worker = subprocess.Popen(
                [sys.executable, str(script), *actions],
                stdin=subprocess.PIPE,
                stderr=log,
                env=environment(settings, **changes),
            )
        started.append(worker)
        return worker

    yield begin
    for worker in started:
        worker.kill()
        worker.wait()
        if worker.stdin is not None:
            worker.stdin.close()


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_job(database)


def child_in(file: Path) -> process_identity.ProcessIdentity:
    """The training that wrote its number into the file."""
    text = wait_until(lambda: file.exists() and file.read_text(), what="the start of the training")
    return process_identity.identify(int(text))


@pytest.mark.slow  # the next tests do each of it
def test_worker_runs_queued_jobs_and_drains(
    database: Database, settings: Settings, start: Start
) -> None:
    jobs = [add_job(database) for _ in range(3)]
    worker = start(*GOOD, concurrency=2)
    wait_until(lambda: {get_state(database, each) for each in jobs} == {JobState.SUCCEEDED})
    worker.send_signal(signal.SIGINT)  # children get SIGTERM
    assert worker.wait(20) == 0
    assert list(workdir.list_attempt_dirs(settings)) == []


def test_killed_worker_ends_its_training_and_the_next_resumes(
    database: Database, start: Start, job_id: UUID, tmp_path: Path
) -> None:
    worker = start("started:5", f"first:{tmp_path / 'child'}", *GOOD)
    child = child_in(tmp_path / "child")
    worker.kill()
    wait_until(lambda: not process_identity.is_alive(child), what="the end of the training")
    assert get_state(database, job_id) is JobState.RUNNING
    start("started:5", f"first:{tmp_path / 'child'}", *GOOD)
    wait_until(lambda: get_state(database, job_id) is JobState.SUCCEEDED)
    row = get_job(database, job_id)
    assert (row.attempt, row.failures_counted) == (2, 1)
    assert [attempt.outcome for attempt in attempts(database, job_id)] == [
        AttemptOutcome.LOST,
        AttemptOutcome.SUCCEEDED,
    ]
    assert [event.kind for event in events(database, job_id)].count("succeeded") == 1


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_draining_worker_requeues_its_job(
    database: Database, start: Start, job_id: UUID, tmp_path: Path, number: int
) -> None:
    worker = start("started:5", f"first:{tmp_path / 'child'}", *GOOD)
    child = child_in(tmp_path / "child")
    worker.send_signal(number)
    assert worker.wait(20) == 0
    assert not process_identity.is_alive(child)
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 0)
    assert attempts(database, job_id)[0].outcome == AttemptOutcome.PREEMPTED


def test_drain_timeout_is_reported(
    database: Database,
    start: Start,
    job_id: UUID,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FINAL_WRITE_SECONDS", "0.3")
    worker = start("started:5", f"first:{tmp_path / 'child'}", *GOOD, stop_grace_seconds=0.3)
    child = child_in(tmp_path / "child")
    with database.write() as session:  # no one else can write to the job
        session.execute(update(Job).where(Job.id == job_id).values(priority=1))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == NOT_IN_TIME
    wait_until(lambda: not process_identity.is_alive(child), what="the end of the training")
    assert get_state(database, job_id) is JobState.RUNNING  # until its lease is over


def test_worker_exits_with_its_parent(
    database: Database, start: Start, job_id: UUID, tmp_path: Path
) -> None:
    worker = start("started:5", f"first:{tmp_path / 'child'}", *GOOD)
    child = child_in(tmp_path / "child")
    assert worker.stdin is not None
    worker.stdin.close()
    assert worker.wait(20) == 0
    assert not process_identity.is_alive(child)
    assert get_state(database, job_id) is JobState.QUEUED


@pytest.mark.slow  # the small form is in tests/conformance/test_renew.py
def test_suspended_worker_with_expired_lease_changes_nothing(
    database: Database, start: Start, job_id: UUID, tmp_path: Path
) -> None:
    actions = ("started:5", f"first:{tmp_path / 'child'}", *GOOD)
    sleeper = start(*actions, lease_seconds=1)
    child = child_in(tmp_path / "child")
    put_to_sleep(sleeper.pid, database)
    start(*actions, lease_seconds=1)
    wait_until(lambda: get_state(database, job_id) is JobState.SUCCEEDED)
    wait_until(lambda: not process_identity.is_alive(child), what="the end of the old training")
    before = dump_tables(database)
    sleeper.send_signal(signal.SIGCONT)
    sleeper.send_signal(signal.SIGTERM)
    assert sleeper.wait(20) == 0
    assert dump_tables(database) == before
    assert [attempt.outcome for attempt in attempts(database, job_id)] == [
        AttemptOutcome.LOST,
        AttemptOutcome.SUCCEEDED,
    ]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        pytest.param({"heartbeat_seconds": 60}, "invalid_setting", marks=pytest.mark.slow),
        ({"database_url": "empty"}, "schema_older"),
        pytest.param({"data_dir": __file__}, "data_folder_unusable", marks=pytest.mark.slow),
    ],
    ids=["settings", "schema", "folder"],
)
def test_startup_error_is_reported(
    start: Start, tmp_path: Path, wrong: dict[str, object], code: str
) -> None:
    if "database_url" in wrong:
        wrong = {"database_url": f"sqlite:///{tmp_path}/empty.sqlite3"}
    assert start(**wrong).wait(20) == BAD_SETTINGS
    log = (tmp_path / "worker.log").read_text()
    assert "cannot start the worker" in log
    assert f'"{code}"' in log
    assert "Traceback" not in log
