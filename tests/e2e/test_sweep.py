"""A sweep with killed workers gives the same result as an undisturbed one."""

import itertools
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.queue.tables import Attempt, Job
from app.resources import Resources, open_resources
from app.sweeps.snapshot import SweepSnapshot, select_winner_and_cheapest
from app.sweeps.states import SweepState
from tests import sweep_rows
from tests.e2e.installation import Installation
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

HALVING = {
    "type": "halving",
    "eta": 2,
    "min_budget": 0.25,
    "min_full_runs": 2,
    "validation_texts": 8,
}
SPACE = {"method.r": [2, 4, 8], "method.alpha": [4.0, 8.0, 16.0, 64.0]}
RUNS = 12 + 6 + 3  # trials at the three rungs


def start(installation: Installation) -> tuple[Resources, UUID]:
    """All sources of randomness on, so that a lost step would be noticed."""
    settings = installation.settings.model_copy(
        update={"base_dirs": (installation.folder,), "broker_url": installation.broker_url}
    )
    resources = open_resources(settings)
    job = {
        "method": {"type": "lora", "targets": ["query", "value", "mlp"]},
        "base": str(installation.base),
        "data": {"source": "rotten-tomatoes", "train_size": 96, "validation_size": 24,
                 "test_size": 24, "max_length": 32},
        "optim": {"epochs": 2, "batch_size": 8, "encoder_dropout": 0.1, "head_dropout": 0.1},
        "runtime": {"device": "cpu", "threads": 1},
    }  # fmt: skip
    return resources, sweep_rows.start(resources, job=job, space=SPACE, strategy=HALVING)


def outcomes(snapshot: SweepSnapshot) -> list[tuple[Any, ...]]:
    """All that must be bitwise equal."""
    return [
        (trial.number, trial.budget, trial.state, trial.metrics, trial.correctness)
        for trial in snapshot.trials
    ]


def wait(installation: Installation, resources: Resources, sweep_id: UUID) -> SweepSnapshot:
    try:
        wait_until(
            lambda: sweep_rows.sweep_state(resources, sweep_id) is SweepState.FINISHED,
            seconds=400,
            what="the end of the sweep",
            pause=0.1,  # seconds between polls
        )
    except AssertionError as error:
        raise AssertionError(f"{error}\n{installation.tail()}") from error
    return sweep_rows.read_snapshot(resources, sweep_id)


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> SweepSnapshot:
    """The result of the sweep without faults."""
    installation = Installation(tmp_path_factory.mktemp("alone"))
    resources, sweep_id = start(installation)
    try:
        installation.worker()
        return wait(installation, resources, sweep_id)
    finally:
        resources.close()
        installation.close()


def check(
    resources: Resources, sweep_id: UUID, snapshot: SweepSnapshot, alone: SweepSnapshot
) -> None:
    """Nothing lost, nothing run twice, the same metrics and verdict."""
    assert [trial.error for trial in snapshot.trials] == [None] * len(snapshot.trials)
    assert outcomes(snapshot) == outcomes(alone)
    assert select_winner_and_cheapest(snapshot) == select_winner_and_cheapest(alone)
    with resources.database.read() as session:
        succeeded = select(Attempt.job_id).where(Attempt.outcome == "succeeded")
        runs = Counter(session.scalars(succeeded))
        trials = Counter(
            (job.trial_sha256, str(job.spec["trial"]))
            for job in session.scalars(select(Job).where(Job.state == "succeeded"))
        )
    assert len(runs) == len(trials) == RUNS
    assert set(runs.values()) == set(trials.values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "kills"), [("embedded", 5), ("cluster", 5)])
def test_sweep_survives_killed_workers(
    installation: Installation, alone: SweepSnapshot, tmp_path: Path, kills: int
) -> None:
    """Kill before and after the transaction that adds trials, and at random times."""
    resources, sweep_id = start(installation)
    draw = random.Random(3)
    points = ["sweep_advanced", "sweep_committed", None, "sweep_advanced", None]
    for i, point in enumerate(points[:kills]):
        trigger = tmp_path / f"trigger-{i}"
        before = done(resources, sweep_id)
        worker = installation.worker(fault=f"{point}:kill:{trigger}" if point else None)
        wait_until(
            lambda before=before: done(resources, sweep_id) > before,  # type: ignore[misc]
            seconds=120,
            what=f"another trial, worker {i}",
        )
        if point is None:
            time.sleep(draw.uniform(0, 1.5))
            worker.kill()
        else:
            trigger.touch()
            wait_until(lambda trigger=trigger: not trigger.exists(), seconds=60)  # type: ignore[misc]
        assert sweep_rows.sweep_state(resources, sweep_id) is SweepState.RUNNING
    installation.worker()
    snapshot = wait(installation, resources, sweep_id)
    check(resources, sweep_id, snapshot, alone)
    resources.close()


def done(resources: Resources, sweep_id: UUID) -> int:
    with resources.database.read() as session:
        mine = (Job.sweep_id == sweep_id, Job.state == "succeeded")
        return len(session.scalars(select(Job.id).where(*mine)).all())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cluster"])
def test_sweep_survives_repeatedly_killed_workers(
    installation: Installation, alone: SweepSnapshot
) -> None:
    resources, sweep_id = start(installation)
    draw = random.Random(5)
    workers = [installation.worker(), installation.worker()]
    for i in itertools.count():
        if i == 10 or sweep_rows.sweep_state(resources, sweep_id) is SweepState.FINISHED:
            break
        time.sleep(draw.uniform(1, 6))
        workers[i % 2].kill()
        workers[i % 2] = installation.worker()
    snapshot = wait(installation, resources, sweep_id)
    check(resources, sweep_id, snapshot, alone)
    resources.close()
