"""Ended jobs keep few points of their curves, and charts of them still show their range."""

import time
from collections.abc import Callable, Iterable
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import event, insert

from app.jobs.results import curves
from app.jobs.schemas import Curve
from app.queue.enums import JobState
from app.queue.tables import MetricPoint
from app.resources import Resources
from app.retention import curve_thinning
from app.retention.curve_thinning import points_to_keep
from app.retention.repository import CurvePoint
from app.retention.service import collect_garbage
from tests.app.retention.conftest import DAY, World
from tests.job_rows import points, update_job
from tests.slow import on_both_databases

Keeping = Callable[..., Resources]
HOUR = 1 / 24  # in days
STEPS = 150  # that a job logs
TRAIN = ("loss", "grad_norm", *sorted(curve_thinning.SUMMARIZED_METRICS))


def draw(world: World, job_id: UUID, names: Iterable[str] = TRAIN, *, steps: int = STEPS) -> None:
    """Store noisy curves of these metrics, and the accuracy of two evaluations."""
    noise = np.random.default_rng(0).normal(size=steps)
    rows = [
        ("train", name, step, float(noise[step - 1]))
        for name in names
        for step in range(1, steps + 1)
    ]
    rows += [("validation", "accuracy", step, step / steps) for step in (steps // 2, steps)]
    with world.database.write() as session:
        session.execute(
            insert(MetricPoint),
            [
                {
                    "job_id": job_id, "seq": seq, "attempt": 1, "split": split, "name": name,
                    "step": step, "value": value, "nonfinite": False, "at": 0.0,
                }
                for seq, (split, name, step, value) in enumerate(rows, start=1)
            ],
        )  # fmt: skip
    update_job(world.database, job_id, stream_seq=len(rows), step=steps)


def stored(world: World, job_id: UUID) -> dict[str, int]:
    """Return the number of points of each metric."""
    counts: dict[str, int] = {}
    for point in points(world.database, job_id):
        counts[point.name] = counts.get(point.name, 0) + 1
    return counts


def read_curves(world: World, job_id: UUID) -> dict[str, Curve]:
    with world.database.read() as session:
        found = curves.list_curves(session, job_id, max_points=10).data
    return {curve.name: curve for curve in found}


def extent(curve: Curve) -> tuple[float, float]:
    """Return the lowest and the highest value of a downsampled curve."""
    low, high = (
        [value for value in each or () if value is not None] for each in (curve.low, curve.high)
    )
    return min(low), max(high)


@on_both_databases
def test_ended_job_keeps_few_points_and_the_range_of_its_curves(
    world: World, keeping: Keeping
) -> None:
    job_id = world.job(days=HOUR)
    draw(world, job_id)
    before = read_curves(world, job_id)
    result = collect_garbage(keeping(keep_curve_points=20))
    left = stored(world, job_id)
    assert left.keys() == {"loss", "grad_norm", "accuracy"}
    assert left["accuracy"] == 2
    assert 15 < left["loss"] <= 20
    assert result.thinned_points == STEPS * len(TRAIN) + 2 - sum(left.values())
    after = read_curves(world, job_id)["loss"]
    assert extent(after) == extent(before["loss"])
    assert after.steps[-1] == before["loss"].steps[-1] == STEPS
    again = collect_garbage(keeping(keep_curve_points=10))
    assert again.thinned_points == 0  # each job is thinned once


def test_failed_job_keeps_speed_and_memory_since_it_has_no_summary(
    world: World, keeping: Keeping
) -> None:
    job_id = world.job(JobState.FAILED, days=HOUR)
    draw(world, job_id)
    collect_garbage(keeping(keep_curve_points=20))
    left = stored(world, job_id)
    assert left.keys() == {*TRAIN, "accuracy"}
    assert max(left.values()) <= 20


def test_jobs_that_may_go_on_are_not_thinned(world: World, keeping: Keeping) -> None:
    running = world.job(JobState.RUNNING)
    retried = world.job(JobState.CANCELLED, days=HOUR)
    world.checkpoint(retried)
    just_ended = world.job()
    for job_id in (running, retried, just_ended):
        draw(world, job_id)
    assert collect_garbage(keeping(keep_curve_points=20)).thinned_points == 0
    update_job(world.database, retried, finished_at=time.time() - 8 * DAY)
    assert collect_garbage(keeping(keep_curve_points=20)).removals[0].kind == "checkpoint"
    assert collect_garbage(keeping(keep_curve_points=20)).thinned_points > STEPS


def test_all_points_are_kept_on_request(world: World, keeping: Keeping) -> None:
    job_id = world.job(days=HOUR)
    draw(world, job_id)
    assert collect_garbage(keeping(keep_curve_points=None)).thinned_points == 0
    assert stored(world, job_id) == dict.fromkeys(TRAIN, STEPS) | {"accuracy": 2}


def test_dry_run_counts_the_points_of_all_pages(
    world: World, keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curve_thinning, "PAGE_SIZE", 2)
    monkeypatch.setattr(curve_thinning, "BATCH_SIZE", 50)
    for _ in range(5):
        draw(world, world.job(days=HOUR), ["loss"])
    commits: list[object] = []
    event.listen(world.database.write_engine, "commit", commits.append)
    resources = keeping(keep_curve_points=20)
    planned = collect_garbage(resources, dry_run=True)
    assert commits == []
    done = collect_garbage(resources)
    assert planned.thinned_points == done.thinned_points > 5 * (STEPS - 25)
    [total] = planned.totals()
    assert (total.kind, total.count) == ("curve point", planned.thinned_points)
    assert total.bytes > 0


@pytest.mark.parametrize("max_points", [10, 11, 100])
@pytest.mark.parametrize("count", [9, 10, 12, 101, 199, 5000])
def test_extremes_and_ends_of_any_curve_are_kept(count: int, max_points: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    steps = np.cumsum(np.random.default_rng(count).integers(1, 50, size=count))
    curve = [
        CurvePoint(seq, int(step), None if seq % 7 == 3 else float(value))
        for seq, (step, value) in enumerate(zip(steps, values, strict=True))
    ]
    kept = points_to_keep(curve, max_points)
    assert len(kept) <= max_points
    finite = {point.seq: point.value for point in curve if point.value is not None}
    assert {
        0,
        count - 1,
        min(finite, key=finite.__getitem__),
        max(finite, key=finite.__getitem__),
    } <= kept
    assert len(kept) == min(count, max_points) or len(kept) >= max_points / 3
