"""The benchmark of scale: what is told from its cells, and the rows that it stores."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from app.database.engines import Database
from app.queue.states import JobState
from app.queue.tables import Attempt, Job, MetricPoint
from app.sweeps.tables import Trial
from benchmarks.kept import Kept, choose
from benchmarks.scale import report, stored
from benchmarks.scale.plan import CELLS, QUICK
from benchmarks.scale.writes import WriteClock
from tests.app.conftest import database, database_kind, migrated, resources, settings

__all__ = ["database", "database_kind", "migrated", "resources", "settings"]


def figures(**changes: float) -> dict[str, Any]:
    """Of a cell that nobody measured."""
    met = {"post_ratio": 1.5, "longest_write_ms": 40.0, "claim_ms_p50": 2.0, "list_ms_p50": 9.0}
    return {**met, "gc_seconds": 8.0, **changes}


@pytest.fixture
def results(tmp_path: Path) -> Kept:
    made = choose(tmp_path, quick=False, fresh=False, what="scale")
    for cell in CELLS:
        made.keep(cell, figures(), seconds=1.0)
    return made


def test_the_worse_database_counts(results: Kept) -> None:
    results.keep("postgresql", figures(post_ratio=3.0, claim_ms_p50=4.0), seconds=1.0)
    told = report.summary(results)
    assert told["met"]
    assert (told["post_ratio_100k"], told["longest_write_ms"], told["claim_ms_p50"]) == (3, 40, 4)
    assert json.loads(json.dumps(told)) == told
    assert "<= 100" in report.table(told)


@pytest.mark.parametrize("missed", [{"post_ratio": 3.01}, {"longest_write_ms": 100.1}])
def test_a_bound_that_one_database_misses_is_missed(
    results: Kept, missed: dict[str, float]
) -> None:
    results.keep("sqlite", figures(**missed), seconds=1.0)
    assert not report.summary(results)["met"]


def test_rows_are_those_of_an_installation_in_use(database: Database) -> None:
    stored.fill(database, QUICK)
    with database.read() as session:
        states = select(Job.state, func.count()).group_by(Job.state)
        counts = {row[0]: row[1] for row in session.execute(states)}
        rows = {
            table: session.scalars(select(func.count()).select_from(table)).one()
            for table in (Job, MetricPoint, Attempt, Trial)
        }
    assert rows[Job] == QUICK.jobs
    assert rows[MetricPoint] == QUICK.points
    assert counts[JobState.QUEUED] == QUICK.queued
    assert rows[Attempt] == QUICK.jobs - QUICK.queued
    assert set(counts) == set(JobState)
    assert rows[Trial] > 0


def test_the_clock_sees_writes_and_no_reads(database: Database) -> None:
    clock = WriteClock()
    with database.read() as session:
        session.scalars(select(func.count()).select_from(Job)).one()
    assert clock.longest_ms() == 0
    with database.write() as session:
        session.execute(update(Job).values(priority=1))
        session.commit()
    assert clock.longest_ms() > 0
    assert clock.longest_ms() == 0
    clock.close()
