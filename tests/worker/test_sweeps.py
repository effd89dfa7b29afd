"""Trials of sweeps in a worker: each runs once, and none is lost."""

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from app.queue.tables import Attempt, Job
from app.resources import Resources
from app.sweeps.results import to_lora_results_txt
from app.sweeps.snapshot import SweepSnapshot
from app.sweeps.states import SweepState
from tests import sweep_rows
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from tests.worker.test_spawn import running_server
from worker import process_identity
from worker.devices import CPU, SlotPool
from worker.fork_server_supervisor import ForkServerSupervisor
from worker.host_health import HostHealthChecker
from worker.job_runner import JobRunner
from worker.poller import Poller
from worker.reconciler import Reconciler

LORA = {"type": "lora", "targets": ["query", "value"]}
SPACE = {"method.alpha": [1, 2, 4, 8], "method.r": [2, 4]}
TRIAL = ("started:4", "steps:4", "trial")
Work = Callable[..., Poller]


@pytest.fixture
def work(resources: Resources, tmp_path: Path) -> Iterator[Work]:
    """Starts a worker of this process that ends by itself."""
    draining = threading.Event()
    made: list[tuple[Poller, threading.Thread, SlotPool]] = []
    owner = process_identity.current_worker()
    servers: list[ForkServerSupervisor] = []

    def go(*actions: str, slots: int = 1) -> Poller:
        scripted(*actions)
        room = SlotPool((CPU,), cpu_slots=slots, lock_dir=tmp_path / "devices")
        reconciler = Reconciler(
            resources,
            owner,
            draining=draining,
            devices=room.device_name_per_slot(),
            host_health=HostHealthChecker(resources),
        )
        reconciler.run_once()
        servers.append(running_server())
        runner = JobRunner(
            resources,
            draining=draining,
            host_health=HostHealthChecker(resources),
            spawn=servers[-1].spawn,
        )
        poller = Poller(
            resources,
            owner,
            runner,
            room,
            draining=draining,
            host_health=HostHealthChecker(resources),
        )
        thread = threading.Thread(target=poller.run)
        thread.start()
        made.append((poller, thread, room))
        return poller

    yield go
    draining.set()
    for poller, thread, room in made:
        poller.wake()
        thread.join(10)
        assert room.wait_idle(20)
    for server in servers:
        server.close()


def finished(resources: Resources, sweep_id: object, seconds: float = 60) -> SweepSnapshot:
    wait_until(
        lambda: sweep_rows.sweep_state(resources, sweep_id) is SweepState.FINISHED,  # type: ignore[arg-type]
        seconds=seconds,
        what="the end of the sweep",
    )
    return sweep_rows.read_snapshot(resources, sweep_id)  # type: ignore[arg-type]


def test_all_trials_run_and_leave_no_directory(resources: Resources, work: Work) -> None:
    sweep_id = sweep_rows.start(resources, job={"method": LORA}, space=SPACE)
    work("started:4", "trial")
    snapshot = finished(resources, sweep_id)
    assert Counter(trial.state for trial in snapshot.trials) == {"succeeded": 8}
    assert {trial.correctness["test"].count for trial in snapshot.trials} == {8}
    wait_until(lambda: not list((resources.settings.work_dir / "jobs").iterdir()))


def test_failed_process_does_not_affect_other_trials(
    resources: Resources, work: Work, tmp_path: Path
) -> None:
    sweep_id = sweep_rows.start(resources, job={"method": LORA}, space=SPACE)
    work("started:4", f"fail-once:{tmp_path / 'failed'}", "trial")
    snapshot = finished(resources, sweep_id)
    assert Counter(trial.state for trial in snapshot.trials) == {"succeeded": 7, "failed": 1}


def test_stopped_trial_resumes_in_another_process(
    resources: Resources, work: Work, tmp_path: Path
) -> None:
    sweep_id = sweep_rows.start(resources, job={"method": LORA}, space={"method.r": [2, 4]})
    hold_file = tmp_path / "held"
    work("started:4", "steps:2", f"first:{hold_file}", "trial")
    wait_until(hold_file.exists, what="a trial under way")
    sweep_rows.stop(resources, sweep_id)
    pid = int(hold_file.read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), what="the end of the process")
    assert sweep_rows.sweep_state(resources, sweep_id) is SweepState.STOPPED
    sweep_rows.resume(resources, sweep_id)
    finished(resources, sweep_id)


@pytest.mark.slow  # the small forms: test_slots.py, tests/app/sweeps
def test_two_slots_share_the_trials(resources: Resources, work: Work, tmp_path: Path) -> None:
    sweep_id = sweep_rows.start(
        resources,
        job={"method": LORA},
        space={**SPACE, "runtime.seed": [0, 1, 2]},
        max_parallel_jobs=2,
    )
    work("started:4", f"note-pid:{tmp_path / 'pids'}", "sleep:0.05", "trial", slots=2)
    finished(resources, sweep_id)
    assert len(set((tmp_path / "pids").read_text().split())) == 24
    with resources.database.read() as session:
        attempts = session.scalars(select(Attempt).order_by(Attempt.started_at)).all()
    pairs = itertools.pairwise(attempts)
    assert any(one.ended_at and two.started_at < one.ended_at for one, two in pairs)


def roles() -> list[list[str]]:
    """Query and value, with or without key, projection and mlp."""
    return [
        ["query", "value", *others]
        for n in range(4)
        for others in itertools.combinations(("key", "projection", "mlp"), n)
    ]


@pytest.mark.slow  # the small forms are above
@pytest.mark.timeout(300)
@pytest.mark.parametrize("sizes", [2, pytest.param(6, marks=pytest.mark.slow)])  # of ranks, alphas
def test_the_whole_grid_of_the_seed_is_started_stopped_and_resumed(
    resources: Resources, work: Work, tmp_path: Path, sizes: int
) -> None:
    trials = 16 * sizes**2
    sweep_id = sweep_rows.start(
        resources,
        job={"preset": "seed", "method": {"type": "lora"}, "result": {"train_metrics": True}},
        space={
            "method.alpha": [1, 4, 8, 16, 32, 64][:sizes],
            "method.r": [1, 2, 4, 8, 16, 32][:sizes],
            "method.targets": roles(),
            "method.head": ["frozen", "lora"],
        },
    )
    snapshot = sweep_rows.read_snapshot(resources, sweep_id)
    assert len(snapshot.trials) == trials
    assert {trial.state for trial in snapshot.trials} == {"waiting", "queued"}
    work("started:4", f"note-pid:{tmp_path / 'pids'}", "trial")
    wait_until(lambda: lines(tmp_path / "pids") > trials // 10, seconds=60)
    sweep_rows.stop(resources, sweep_id)
    done = (
        len(to_lora_results_txt(sweep_rows.read_snapshot(resources, sweep_id)).split("lora_r")) - 1
    )
    assert trials // 10 <= done < trials
    sweep_rows.resume(resources, sweep_id)
    snapshot = finished(resources, sweep_id, seconds=200)
    assert {trial.state for trial in snapshot.trials} == {"succeeded"}
    assert to_lora_results_txt(snapshot).count("Test acc:") == trials
    with resources.database.read() as session:
        succeeded = select(Attempt.job_id).where(Attempt.outcome == "succeeded")
        runs = Counter(session.scalars(succeeded))
        keys = Counter(session.scalars(select(Job.trial_sha256).where(Job.state == "succeeded")))
    assert len(runs) == len(keys) == trials
    assert set(runs.values()) == set(keys.values()) == {1}


def lines(file: Path) -> int:
    return len(file.read_text().split()) if file.exists() else 0
