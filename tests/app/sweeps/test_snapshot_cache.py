"""Cached snapshots: the same object while nothing changes, else only changed trials are reread."""

from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import event
from starlette.testclient import TestClient

from app.resources import Resources
from app.sweeps import repository, results
from app.sweeps.snapshot import SweepSnapshot, select_winner_and_cheapest
from tests.app.sweeps.conftest import StartSweep
from tests.app.sweeps.fake_worker import FakeSweepWorker
from tests.slow import MOSTLY_SQLITE


@pytest.fixture(params=MOSTLY_SQLITE)
def database_kind(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def read_snapshot(resources: Resources) -> Callable[[str], SweepSnapshot]:
    def read(sweep_id: str) -> SweepSnapshot:
        with resources.database.read() as session:
            return results.read_cached_snapshot(
                session, repository.get_sweep(session, UUID(sweep_id))
            )

    return read


def read_uncached(
    read_snapshot: Callable[[str], SweepSnapshot], sweep_id: str, monkeypatch: pytest.MonkeyPatch
) -> SweepSnapshot:
    """Read the snapshot with an empty cache."""
    with monkeypatch.context() as patch:
        patch.setattr(results, "_cache", results._SnapshotCache())
        return read_snapshot(sweep_id)


def test_a_cached_snapshot_is_always_current(
    start_sweep: StartSweep,
    worker: FakeSweepWorker,
    read_snapshot: Callable[[str], SweepSnapshot],
    client: TestClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep_id = start_sweep(strategy={"type": "halving", "min_full_runs": 2})["id"]
    address = f"/v1/sweeps/{sweep_id}"

    def claim() -> None:
        claimed = worker.claim_next()
        assert claimed is not None
        running.append(claimed)

    running: list[object] = []
    steps: list[Callable[[], object]] = [
        lambda: None,
        claim,
        lambda: worker.run_job(running.pop()),  # type: ignore[arg-type]
        lambda: worker.run_jobs(3),
        lambda: client.post(f"{address}/pause"),
        lambda: client.post(f"{address}/resume"),
        lambda: setattr(worker, "should_fail", lambda _: True),
        lambda: worker.run_jobs(4),
        lambda: client.post(f"{address}/retry"),
        lambda: setattr(worker, "should_fail", lambda _: False),
        worker.fail_as_lost,
        worker.run_jobs,
        lambda: client.post(f"{address}/extend", json={"space": {"method.r": [16]}}),
        worker.run_jobs,
    ]
    for number, step in enumerate(steps):
        step()
        snapshot, fresh = (
            read_snapshot(sweep_id),
            read_uncached(read_snapshot, sweep_id, monkeypatch),
        )
        assert vars(snapshot) | {"ranked": 0} == vars(fresh) | {"ranked": 0}, number
        assert read_snapshot(sweep_id) is snapshot
        assert select_winner_and_cheapest(snapshot) == select_winner_and_cheapest(fresh)
    assert read_snapshot(sweep_id).state == "finished"


def test_only_changed_trials_are_reread(
    start_sweep: StartSweep,
    worker: FakeSweepWorker,
    read_snapshot: Callable[[str], SweepSnapshot],
    resources: Resources,
) -> None:
    sweep_id = start_sweep()["id"]
    worker.run_jobs(5)
    before = read_snapshot(sweep_id)
    rows = 0

    def count(*_: object) -> None:
        nonlocal rows
        rows += 1

    worker.run_jobs(1)
    with resources.database.read() as session:
        event.listen(session, "loaded_as_persistent", count)
        after = results.read_cached_snapshot(session, repository.get_sweep(session, UUID(sweep_id)))
    changed = [a.number for a, b in zip(before.trials, after.trials, strict=True) if a is not b]
    assert changed == [6, 7]  # one has ended, the next one is queued
    assert 0 < rows < 12  # of sweeps, trials, jobs and correctness


def test_the_last_few_snapshots_are_cached(
    start_sweep: StartSweep, read_snapshot: Callable[[str], SweepSnapshot]
) -> None:
    ids = [
        start_sweep(space={"method.r": [2]})["id"] for _ in range(results.MAX_CACHED_SNAPSHOTS + 1)
    ]
    snapshots = [read_snapshot(each) for each in ids]
    assert read_snapshot(ids[-1]) is snapshots[-1]
    assert read_snapshot(ids[0]) is not snapshots[0]
