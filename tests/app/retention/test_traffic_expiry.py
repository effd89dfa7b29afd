"""Kept predictions, feedback and counts have an end."""

import time
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest

from app.database.base import min_uuid7_at, new_id
from app.resources import Resources
from app.retention import service
from app.retention.service import collect_garbage
from app.storage.errors import StorageUnavailable
from app.traffic.tables import PredictionCount, PredictionOutcome
from tests.app.retention.conftest import DAY, World
from tests.kept_predictions import add_feedback, add_prediction, all_feedback, kept_predictions
from tests.slow import on_both_databases


def id_of_age(days: float) -> UUID:
    return UUID(
        int=min_uuid7_at(time.time() - days * DAY).int | uuid4().int & 0xFFFF_FFFF,
    )


@on_both_databases
def test_kept_predictions_expire(
    world: World, keeping: Callable[..., Resources], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_ROWS_PER_BATCH", 2)
    for _ in range(5):
        add_prediction(world.database, prediction_id=id_of_age(31))
    kept = add_prediction(world.database, prediction_id=id_of_age(29))
    planned = collect_garbage(world.resources, dry_run=True)
    assert (planned.expired_traffic, len(kept_predictions(world.database))) == (5, 6)
    done = collect_garbage(world.resources)
    assert done.expired_traffic == 5
    assert [row.prediction_id for row in kept_predictions(world.database)] == [kept]
    assert ("kept prediction", 5) in [(each.kind, each.count) for each in done.totals()]
    # Also after the owner has turned it off.
    collect_garbage(keeping(keep_traffic="off", keep_traffic_days=28))
    assert kept_predictions(world.database) == []


def test_kept_predictions_expire_while_the_store_is_unavailable(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise StorageUnavailable(reason="down")

    monkeypatch.setattr(world.resources.store, "list_files", fail)
    add_prediction(world.database, prediction_id=id_of_age(31))
    with pytest.raises(StorageUnavailable):
        collect_garbage(world.resources)
    assert kept_predictions(world.database) == []


@pytest.mark.parametrize(("days", "left"), [(None, 2), (401, 2), (400, 1), (0, 0)])
def test_feedback_expires(
    days: float | None, left: int, world: World, keeping: Callable[..., Resources]
) -> None:
    now = time.time()
    add_feedback(world.database, updated_at=now - 400.5 * DAY)
    add_feedback(world.database, updated_at=now - 2, prediction_id=new_id())
    resources = keeping(keep_feedback_days=days)
    assert collect_garbage(resources, dry_run=True).expired_feedback == 2 - left
    assert collect_garbage(resources).expired_feedback == 2 - left
    assert len(all_feedback(world.database)) == left


@on_both_databases
def test_counts_of_hours_become_days_and_end(world: World) -> None:
    today = int(time.time()) // 86_400 * 86_400

    def add(start: int, count: int, label: str = "good") -> None:
        with world.database.write() as session:
            session.add(
                PredictionCount(
                    model="sentiment",
                    number=1,
                    start=start,
                    outcome=PredictionOutcome.LABEL,
                    label=label,
                    count=count,
                )
            )

    old, recent, ended = (today - days * 86_400 for days in (20, 10, 401))
    for hour in range(24):
        add(old + hour * 3600, 1)
        add(recent + hour * 3600, 1)
    add(old + 3600, 5, "bad")
    add(ended, 7)
    assert collect_garbage(world.resources, dry_run=True).expired_counts == 23 + 1 + 1
    assert collect_garbage(world.resources).expired_counts == 23 + 1 + 1
    with world.database.read() as session:
        rows = {(row.start, row.label): row.count for row in session.query(PredictionCount)}
    by_hour = {(recent + hour * 3600, "good"): 1 for hour in range(24)}
    assert rows == {(old, "good"): 24, (old, "bad"): 5, **by_hour}
    assert collect_garbage(world.resources).expired_counts == 0
