"""A sweep whose workers are killed gives what one gives that is left alone."""

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
from app.sweeps.snapshot import SweepSnapshot
from app.sweeps.states import SweepState
from app.sweeps.winner import select_winner
from tests import sweep_rows
from tests.e2e.installation import Installation
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

HALVING = {"type": "halving", "eta": 2, "first_share": 0.25, "keep": 2, "validation_texts": 8}
SPACE = {"method.r": [2, 4, 8], "method.alpha": [4.0, 8.0, 16.0, 64.0]}
RUNS = 12 + 6 + 3  # of cells at the three rungs


def start(installation: Installation) -> tuple[Resources, UUID]:
    """Everything random that can be, so that a lost step would show."""
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


def told(board: SweepSnapshot) -> list[tuple[Any, ...]]:
    """All that must be equal, to the last bit."""
    return [
        (cell.number, cell.budget, cell.state, cell.metrics, cell.correctness)
        for cell in board.trials
    ]


def wait(installation: Installation, resources: Resources, sweep_id: UUID) -> SweepSnapshot:
    try:
        wait_until(
            lambda: sweep_rows.sweep_state(resources, sweep_id) is SweepState.FINISHED,
            seconds=400,
            what="the end of the sweep",
            pause=0.1,  # a look costs something, too
        )
    except AssertionError as error:
        raise AssertionError(f"{error}\n{installation.tail()}") from error
    return sweep_rows.read_snapshot(resources, sweep_id)


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> SweepSnapshot:
    """What the sweep gives when nothing happens to it."""
    whole = Installation(tmp_path_factory.mktemp("alone"))
    resources, sweep_id = start(whole)
    try:
        whole.worker()
        return wait(whole, resources, sweep_id)
    finally:
        resources.close()
        whole.close()


def check(resources: Resources, sweep_id: UUID, board: SweepSnapshot, alone: SweepSnapshot) -> None:
    """Nothing lost, nothing run twice, the same figures, the same verdict."""
    assert [cell.error for cell in board.trials] == [None] * len(board.trials)
    assert told(board) == told(alone)
    assert select_winner(board) == select_winner(alone)
    with resources.database.read() as session:
        succeeded = select(Attempt.job_id).where(Attempt.outcome == "succeeded")
        runs = Counter(session.scalars(succeeded))
        cells = Counter(
            (job.cell_sha256, str(job.spec["trial"]))
            for job in session.scalars(select(Job).where(Job.state == "succeeded"))
        )
    assert len(runs) == len(cells) == RUNS
    assert set(runs.values()) == set(cells.values()) == {1}


@pytest.mark.parametrize(
    ("kind", "kills"),
    [
        ("embedded", 3),
        pytest.param("embedded", 5, marks=pytest.mark.slow),
        pytest.param("cluster", 5, marks=pytest.mark.slow),
    ],
)
def test_workers_are_killed_some_of_them_as_they_go_on(
    installation: Installation, alone: SweepSnapshot, tmp_path: Path, kills: int
) -> None:
    """Before the transaction that gives the next cells, after it, and at any other moment."""
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
            what=f"another cell, worker {i}",
        )
        if point is None:
            time.sleep(draw.uniform(0, 1.5))
            worker.kill()
        else:
            trigger.touch()
            wait_until(lambda trigger=trigger: not trigger.exists(), seconds=60)  # type: ignore[misc]
        assert sweep_rows.sweep_state(resources, sweep_id) is SweepState.RUNNING
    installation.worker()
    board = wait(installation, resources, sweep_id)
    check(resources, sweep_id, board, alone)
    resources.close()


def done(resources: Resources, sweep_id: UUID) -> int:
    with resources.database.read() as session:
        mine = (Job.sweep_id == sweep_id, Job.state == "succeeded")
        return len(session.scalars(select(Job.id).where(*mine)).all())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cluster"])
def test_two_workers_are_killed_again_and_again(
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
    board = wait(installation, resources, sweep_id)
    check(resources, sweep_id, board, alone)
    resources.close()
