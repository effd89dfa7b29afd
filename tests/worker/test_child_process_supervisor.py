"""A training process is supervised and stopped when necessary."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest

from app.database.base import now
from app.database.engines import Database
from app.queue.transitions import ProcessExitStatus
from app.settings import Settings
from app.storage.store import ArtifactRef
from lora_core.events import CheckpointSaved
from tests.job_rows import (
    SPEC,
    add_job,
    claim_next,
    dump_tables,
    events,
    get_job,
    points,
    preempt,
    update_job,
)
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from worker.child_process_supervisor import (
    POLL_SECONDS,
    ChildProcessSupervisor,
    ChildResult,
    StopReason,
)
from worker.recorder import CheckpointRow, Recorder
from worker.spawn import ChildProcess, ChildTask, spawn_child
from worker.workdir import AttemptDir


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_job(database)


class SupervisedRun:
    """A supervised child process in its own thread, as in the worker."""

    def __init__(self, settings: Settings, database: Database, directory: Path) -> None:
        self.settings = settings
        self.database = database
        self.draining = threading.Event()
        self.results: list[ChildResult] = []
        self.stored: list[CheckpointSaved] = []
        self.store_checkpoint: Callable[[CheckpointSaved], None] = self.stored.append
        self.seconds = float("inf")
        self._directory = directory
        self._threads: list[threading.Thread] = []
        self.lease = claim_next(database).lease
        self.child: ChildProcess | None = None
        self.recorder = Recorder(
            database,
            self.lease,
            heartbeat_seconds=settings.heartbeat_seconds,
            delete_artifact=lambda _: None,
        )

    def start(self, *actions: str) -> None:
        thread = threading.Thread(target=self._run, args=(actions,))
        self._threads.append(thread)
        thread.start()

    def end(self) -> ChildResult:
        """Return the result of the process."""
        return wait_until(lambda: self.results, what="the end of the process")[0]

    def has_exited(self) -> bool:
        """Return whether it has exited, without reaping it."""
        assert self.child is not None
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.child._process.pid, how) is not None

    def close(self) -> None:
        self.draining.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _run(self, actions: tuple[str, ...]) -> None:
        attempt_dir = AttemptDir(self.lease.job_id, 1, self._directory)
        attempt_dir.spec.write_text(json.dumps(SPEC))
        order = ChildTask(
            "train", attempt_dir, resume_from=None, checkpoint_seconds=0, threads=1, device="cpu"
        )
        scripted(*actions)
        self.child = spawn_child(order)
        supervisor = ChildProcessSupervisor(
            self.child,
            self.recorder,
            settings=self.settings,
            draining=self.draining,
            store_checkpoint=self.store_checkpoint,
            time_limit_seconds=self.seconds,
        )
        self.results.append(supervisor.run())


@pytest.fixture
def watched(
    settings: Settings, database: Database, tmp_path: Path, job_id: UUID
) -> Iterator[SupervisedRun]:
    made = SupervisedRun(settings, database, tmp_path)
    yield made
    made.close()


def has_started(database: Database, job_id: UUID) -> bool:
    return any(event.kind == "training" for event in events(database, job_id))


def test_complete_run_is_recorded(watched: SupervisedRun, database: Database, job_id: UUID) -> None:
    watched.start("started:20", "steps:20", "evaluated:validation", "succeed")
    assert watched.end() == ChildResult(
        ProcessExitStatus(code=0), stop_reason=None, failure=None, step=20
    )
    assert watched.recorder.step == 20
    row = get_job(database, job_id)
    assert (row.step, row.total_steps) == (20, 20)
    losses = [p.value for p in points(database, job_id) if (p.split, p.name) == ("train", "loss")]
    assert losses == [1 / number for number in range(1, 21)]
    assert [event.kind for event in events(database, job_id)] == [
        "started",
        "training",
        "evaluated",
        "storing",
    ]


def test_failure_event_is_returned(watched: SupervisedRun) -> None:
    watched.start("failed:one_class", "exit:65")
    result = watched.end()
    assert result.failure is not None
    assert (result.exit_status.code, result.failure.code) == (65, "one_class")


def test_lease_is_renewed_without_events(
    watched: SupervisedRun, database: Database, job_id: UUID
) -> None:
    watched.start("started:5", "hang")
    wait_until(lambda: has_started(database, job_id))
    update_job(database, job_id, lease_expires_at=1.0)
    wait_until(lambda: (get_job(database, job_id).lease_expires_at or 0) > 1.0, what="a heartbeat")


def test_cancel_stops_the_process(watched: SupervisedRun, database: Database, job_id: UUID) -> None:
    watched.start("started:5", "hang")
    wait_until(lambda: has_started(database, job_id))
    update_job(database, job_id, cancel_requested_at=now())
    result = watched.end()
    assert (result.stop_reason, result.exit_status) == (
        StopReason.CANCEL,
        ProcessExitStatus(code=75),
    )


def test_pause_stops_the_process(watched: SupervisedRun, database: Database, job_id: UUID) -> None:
    watched.start("started:5", "hang")
    wait_until(lambda: has_started(database, job_id))
    update_job(database, job_id, pause_requested_at=now())
    result = watched.end()
    assert (result.stop_reason, result.exit_status) == (
        StopReason.PAUSE,
        ProcessExitStatus(code=75),
    )


def test_cancel_is_the_reason_if_both_were_requested(
    watched: SupervisedRun, database: Database, job_id: UUID
) -> None:
    watched.start("started:5", "hang")
    wait_until(lambda: has_started(database, job_id))
    update_job(database, job_id, pause_requested_at=now(), cancel_requested_at=now())
    assert watched.end().stop_reason is StopReason.CANCEL


def test_process_is_killed_after_stop_grace(
    settings: Settings, database: Database, tmp_path: Path, job_id: UUID
) -> None:
    quick = settings.model_copy(update={"stop_grace_seconds": 0.3})
    watched = SupervisedRun(quick, database, tmp_path)
    watched.start("ignore-term", "started:5", "hang")
    wait_until(lambda: has_started(database, job_id))
    started_at = time.monotonic()
    watched.draining.set()
    result = watched.end()
    assert time.monotonic() - started_at >= 0.3
    assert (result.stop_reason, result.exit_status) == (
        StopReason.DRAIN,
        ProcessExitStatus(signal=signal.SIGKILL),
    )
    watched.close()


def test_checkpoint_is_passed_to_the_store(watched: SupervisedRun) -> None:
    watched.start("started:5", "steps:2", "checkpoint:2", "succeed")
    watched.end()
    assert [(each.step, each.directory) for each in watched.stored] == [(2, "step-2")]


SAVES = ("started:5", "checkpoint:2", "hang")


@pytest.mark.parametrize(
    ("stop_reason", "actions", "exit_status"),
    [
        (StopReason.LEASE_LOST, SAVES, ProcessExitStatus(signal=signal.SIGKILL)),
        (StopReason.CANCEL, SAVES, ProcessExitStatus(code=75)),
        (StopReason.DRAIN, ("ignore-term", *SAVES), ProcessExitStatus(signal=signal.SIGKILL)),
    ],
)
def test_process_stops_while_checkpoint_is_stored(
    settings: Settings,
    database: Database,
    tmp_path: Path,
    job_id: UUID,
    stop_reason: StopReason,
    actions: tuple[str, ...],
    exit_status: ProcessExitStatus,
) -> None:
    grace = 0.3 if stop_reason is StopReason.DRAIN else 10
    watched = SupervisedRun(
        settings.model_copy(update={"stop_grace_seconds": grace}), database, tmp_path
    )

    def upload(_: CheckpointSaved) -> None:
        if stop_reason is StopReason.LEASE_LOST:
            preempt(database, watched.lease)
        elif stop_reason is StopReason.CANCEL:
            update_job(database, job_id, cancel_requested_at=now())
        else:
            watched.draining.set()
        with watched.recorder.renewing_lease():
            wait_until(watched.has_exited, what="the end of the process")
        watched.recorder.add_row(
            CheckpointRow(2, ArtifactRef("checkpoints/x/a1/step-2", "0" * 64, 1))
        )

    watched.store_checkpoint = upload
    watched.start(*actions)
    result = watched.end()
    assert (result.stop_reason, result.exit_status) == (stop_reason, exit_status)
    counts = "checkpoint" in [event.kind for event in events(database, job_id)]
    assert counts is (stop_reason is not StopReason.LEASE_LOST)
    watched.close()


def test_slow_checkpoint_upload_is_not_a_stall(
    watched: SupervisedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upload(_: CheckpointSaved) -> None:
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600)
        monkeypatch.setattr("worker.child_process_supervisor.time", later)
        time.sleep(2 * POLL_SECONDS)

    watched.store_checkpoint = upload
    watched.start("checkpoint:2", "exit:0")
    result = watched.end()
    assert (result.stop_reason, result.exit_status) == (None, ProcessExitStatus(code=0))


def test_job_is_stopped_at_its_time_limit(watched: SupervisedRun) -> None:
    watched.seconds = 2
    watched.start("started:5", "hang")
    result = watched.end()
    assert (result.stop_reason, result.exit_status) == (
        StopReason.TIME_LIMIT,
        ProcessExitStatus(code=75),
    )


@pytest.mark.parametrize("stall", ["hang", f"signal:{signal.SIGSTOP.value}"])
def test_stalled_process_is_aborted(
    settings: Settings,
    database: Database,
    tmp_path: Path,
    job_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
    stall: str,
) -> None:
    """Also one that only SIGKILL ends."""
    monkeypatch.setattr("worker.child_process_supervisor.ABORT_SECONDS", 1.0)
    watched = SupervisedRun(settings.model_copy(update={"stall_seconds": 1.0}), database, tmp_path)
    watched.start("started:5", "steps:2", stall)
    result = watched.end()
    assert (result.stop_reason, result.exit_status) == (
        StopReason.STALL,
        ProcessExitStatus(signal=signal.SIGABRT),
    )
    assert watched.recorder.step == 2
    watched.close()


def test_lost_lease_kills_the_process_and_stops_writes(
    watched: SupervisedRun, database: Database, job_id: UUID
) -> None:
    watched.start("ignore-term", "started:5", "hang")
    wait_until(lambda: has_started(database, job_id))
    preempt(database, watched.lease)
    before = dump_tables(database)
    result = watched.end()
    assert (result.stop_reason, result.exit_status) == (
        StopReason.LEASE_LOST,
        ProcessExitStatus(signal=signal.SIGKILL),
    )
    assert dump_tables(database) == before
