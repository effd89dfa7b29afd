"""A training process is heard, and made to leave when it must."""

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

from app.database.clock import now
from app.database.engines import Database
from app.queue.transitions import ExitStatus
from app.settings import Settings
from app.storage.store import ArtifactRef
from lora_core.events import CheckpointSaved
from tests.job_rows import (
    SPEC,
    add_job,
    change,
    events,
    everything,
    give_back,
    job,
    points,
    take,
)
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from worker.recorder import Recorder
from worker.spawn import Child, Order, start
from worker.supervisor import LOOK_SECONDS, Asked, Ended, Supervisor
from worker.workdir import Place


@pytest.fixture
def job_id(database: Database) -> UUID:
    return add_job(database)


class Watched:
    """A supervised child in a thread of its own, as the worker has it."""

    def __init__(self, settings: Settings, database: Database, directory: Path) -> None:
        self.settings = settings
        self.database = database
        self.draining = threading.Event()
        self.ended: list[Ended] = []
        self.kept: list[CheckpointSaved] = []
        self.keep: Callable[[CheckpointSaved], None] = self.kept.append
        self.seconds = float("inf")
        self._directory = directory
        self._threads: list[threading.Thread] = []
        self.lease = take(database).lease
        self.child: Child | None = None
        self.recorder = Recorder(
            database, self.lease, beat_seconds=settings.beat_seconds, drop=lambda _: None
        )

    def start(self, *actions: str) -> None:
        thread = threading.Thread(target=self._run, args=(actions,))
        self._threads.append(thread)
        thread.start()

    def end(self) -> Ended:
        """How it left."""
        return wait_until(lambda: self.ended, what="the end of the process")[0]

    def has_left(self) -> bool:
        """Though it is still waited for."""
        assert self.child is not None
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.child._process.pid, how) is not None

    def close(self) -> None:
        self.draining.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _run(self, actions: tuple[str, ...]) -> None:
        place = Place(self.lease.job_id, 1, self._directory)
        place.spec.write_text(json.dumps(SPEC))
        order = Order("train", place, resume=None, checkpoint_seconds=0, threads=1, device="cpu")
        scripted(*actions)
        self.child = start(order)
        supervisor = Supervisor(
            self.child,
            self.recorder,
            settings=self.settings,
            draining=self.draining,
            keep=self.keep,
            seconds=self.seconds,
        )
        self.ended.append(supervisor.run())


@pytest.fixture
def watched(
    settings: Settings, database: Database, tmp_path: Path, job_id: UUID
) -> Iterator[Watched]:
    made = Watched(settings, database, tmp_path)
    yield made
    made.close()


def told(database: Database, job_id: UUID) -> bool:
    return any(event.kind == "training" for event in events(database, job_id))


def test_a_run_to_the_end_is_in_the_rows(
    watched: Watched, database: Database, job_id: UUID
) -> None:
    watched.start("started:20", "steps:20", "evaluated:validation", "succeed")
    assert watched.end() == Ended(ExitStatus(code=0), asked=None, failed=None, step=20)
    assert watched.recorder.step == 20
    row = job(database, job_id)
    assert (row.step, row.total_steps) == (20, 20)
    losses = [p.value for p in points(database, job_id) if (p.split, p.name) == ("train", "loss")]
    assert losses == [1 / number for number in range(1, 21)]
    assert [event.kind for event in events(database, job_id)] == [
        "started",
        "training",
        "evaluated",
        "trained",
    ]


def test_the_reason_of_a_failure_is_kept(watched: Watched) -> None:
    watched.start("failed:one_class", "exit:65")
    ended = watched.end()
    assert ended.failed is not None
    assert (ended.left.code, ended.failed.code) == (65, "one_class")


def test_the_lease_is_renewed_while_nothing_is_told(
    watched: Watched, database: Database, job_id: UUID
) -> None:
    watched.start("started:5", "hang")
    wait_until(lambda: told(database, job_id))
    change(database, job_id, lease_expires_at=1.0)
    wait_until(lambda: (job(database, job_id).lease_expires_at or 0) > 1.0, what="a beat")


def test_a_cancel_stops_the_process(watched: Watched, database: Database, job_id: UUID) -> None:
    watched.start("started:5", "hang")
    wait_until(lambda: told(database, job_id))
    change(database, job_id, cancel_requested_at=now())
    ended = watched.end()
    assert (ended.asked, ended.left) == (Asked.CANCEL, ExitStatus(code=75))


def test_a_process_that_does_not_stop_is_killed_after_the_grace(
    settings: Settings, database: Database, tmp_path: Path, job_id: UUID
) -> None:
    quick = settings.model_copy(update={"stop_grace_seconds": 0.3})
    watched = Watched(quick, database, tmp_path)
    watched.start("ignore-term", "started:5", "hang")
    wait_until(lambda: told(database, job_id))
    began = time.monotonic()
    watched.draining.set()
    ended = watched.end()
    assert time.monotonic() - began >= 0.3
    assert (ended.asked, ended.left) == (Asked.DRAIN, ExitStatus(signal=signal.SIGKILL))
    watched.close()


def test_a_checkpoint_is_handed_on(watched: Watched) -> None:
    watched.start("started:5", "steps:2", "checkpoint:2", "succeed")
    watched.end()
    assert [(each.step, each.directory) for each in watched.kept] == [(2, "step-2")]


SAVES = ("started:5", "checkpoint:2", "hang")


@pytest.mark.parametrize(
    ("asked", "actions", "left"),
    [
        (Asked.FENCED, SAVES, ExitStatus(signal=signal.SIGKILL)),
        (Asked.CANCEL, SAVES, ExitStatus(code=75)),
        (Asked.DRAIN, ("ignore-term", *SAVES), ExitStatus(signal=signal.SIGKILL)),
    ],
)
def test_a_process_leaves_in_time_while_its_checkpoint_is_stored(
    settings: Settings,
    database: Database,
    tmp_path: Path,
    job_id: UUID,
    asked: Asked,
    actions: tuple[str, ...],
    left: ExitStatus,
) -> None:
    grace = 0.3 if asked is Asked.DRAIN else 10
    watched = Watched(settings.model_copy(update={"stop_grace_seconds": grace}), database, tmp_path)

    def upload(_: CheckpointSaved) -> None:
        if asked is Asked.FENCED:
            give_back(database, watched.lease)
        elif asked is Asked.CANCEL:
            change(database, job_id, cancel_requested_at=now())
        else:
            watched.draining.set()
        with watched.recorder.beating():
            wait_until(watched.has_left, what="the end of the process")
        watched.recorder.note_stored(2, ArtifactRef("checkpoints/x/a1/step-2", "0" * 64, 1))

    watched.keep = upload
    watched.start(*actions)
    ended = watched.end()
    assert (ended.asked, ended.left) == (asked, left)
    counts = "checkpoint" in [event.kind for event in events(database, job_id)]
    assert counts is (asked is not Asked.FENCED)
    watched.close()


def test_a_checkpoint_that_takes_long_to_store_is_no_silence(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def upload(_: CheckpointSaved) -> None:
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 3600)
        monkeypatch.setattr("worker.supervisor.time", later)
        time.sleep(2 * LOOK_SECONDS)

    watched.keep = upload
    watched.start("checkpoint:2", "exit:0")
    ended = watched.end()
    assert (ended.asked, ended.left) == (None, ExitStatus(code=0))


def test_a_job_is_stopped_when_its_time_is_over(watched: Watched) -> None:
    watched.seconds = 0.5
    watched.start("started:5", "hang")
    ended = watched.end()
    assert (ended.asked, ended.left) == (Asked.TIME_LIMIT, ExitStatus(code=75))


def test_silence_is_ended(
    settings: Settings, database: Database, tmp_path: Path, job_id: UUID
) -> None:
    watched = Watched(settings.model_copy(update={"stall_seconds": 1.0}), database, tmp_path)
    watched.start("started:5", "steps:2", "hang")
    ended = watched.end()
    assert (ended.asked, ended.left) == (Asked.STALL, ExitStatus(signal=signal.SIGABRT))
    assert watched.recorder.step == 2
    watched.close()


def test_who_lost_the_job_kills_the_process_and_writes_nothing_more(
    watched: Watched, database: Database, job_id: UUID
) -> None:
    watched.start("ignore-term", "started:5", "hang")
    wait_until(lambda: told(database, job_id))
    give_back(database, watched.lease)
    before = everything(database)
    ended = watched.end()
    assert (ended.asked, ended.left) == (Asked.FENCED, ExitStatus(signal=signal.SIGKILL))
    assert everything(database) == before
