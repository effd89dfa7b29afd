"""The scale benchmark: summary and stored rows."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app.database.engines import Database
from app.queue.enums import JobState
from app.queue.tables import Attempt, Job, MetricPoint
from app.sweeps.tables import Trial
from benchmarks.results_file import ResultsFile, choose
from benchmarks.scale import report, stored
from benchmarks.scale.plan import CELLS, MODEL, QUICK
from tests.app.conftest import database, database_kind, migrated, resources, settings

__all__ = ["database", "database_kind", "migrated", "resources", "settings"]


def metrics(**changes: float) -> dict[str, Any]:
    """Made-up metrics of a cell."""
    met = {"post_ratio": 1.5, "longest_write_ms": 40.0, "claim_ms_p50": 2.0, "list_ms_p50": 9.0}
    pages = {"page_ms_p50": 30.0, "metrics_ms_p50": 5.0, "metrics_cold_ms": 70.0}
    streams = {"streams_core_share": 0.05, "streams_get_ms_p50": 4.0}
    return {**met, **pages, **streams, "gc_seconds": 8.0, **changes}


@pytest.fixture
def results(tmp_path: Path) -> ResultsFile:
    made = choose(tmp_path, quick=False, fresh=False, what="scale")
    for cell in CELLS:
        made.add(cell, metrics(), seconds=1.0)
    made.add(MODEL, {"model_bytes": 1_000_000}, seconds=1.0)
    return made


def test_worse_database_is_reported(results: ResultsFile) -> None:
    changes = {"post_ratio": 3.0, "claim_ms_p50": 4.0, "page_ms_p50": 31.0}
    results.add("postgresql", metrics(**changes), seconds=1.0)
    summary = report.summary(results)
    assert summary["met"]
    assert (summary["post_ratio_100k"], summary["longest_write_ms"], summary["claim_ms_p50"]) == (
        3,
        40,
        4,
    )
    assert (summary["page_ms"], summary["metrics_ms"], summary["list_ms"]) == (31, 5, 9)
    assert summary["metrics_cold_ms"] == 70
    assert (summary["streams_200_core_share"], summary["model_bytes"]) == (0.05, 1_000_000)
    assert json.loads(json.dumps(summary)) == summary
    assert "<= 100" in report.table(summary)


def test_results_from_before_a_number_was_measured_are_reported(results: ResultsFile) -> None:
    older = metrics()
    del older["metrics_cold_ms"]
    results.add("postgresql", older, seconds=1.0)
    summary = report.summary(results)
    assert "metrics_cold_ms" not in summary
    assert "metrics_cold_ms" in report.table(summary)


@pytest.mark.parametrize(
    "missed",
    [
        {"post_ratio": 3.01},
        {"longest_write_ms": 100.1},
        {"page_ms_p50": 60.1},
        {"metrics_ms_p50": 60.1},
        {"list_ms_p50": 60.1},
        {"streams_core_share": 0.151},
        {"streams_get_ms_p50": 60.1},
    ],
)
def test_limit_missed_by_one_database_is_missed(
    results: ResultsFile, missed: dict[str, float]
) -> None:
    results.add("sqlite", metrics(**missed), seconds=1.0)
    assert not report.summary(results)["met"]


@pytest.mark.slow  # fills a database
def test_filled_database_has_rows_in_every_state(database: Database) -> None:
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
