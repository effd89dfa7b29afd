"""The page benchmark: summary and stored rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.database.engines import Database
from app.jobs import repository
from app.jobs.results import curves
from benchmarks.page import report, stored
from benchmarks.page.plan import CELLS
from benchmarks.results_file import ResultsFile, choose
from tests.app.conftest import database, database_kind, migrated, resources, settings

__all__ = ["database", "database_kind", "migrated", "resources", "settings"]

SECONDS = {"first_paint": (0.4, 0.6), "largest_paint": (0.5, 1.2), "seen": (1.0, 1.1)}


def example_metrics(cell: str) -> dict[str, Any]:
    """Made-up metrics of a cell."""
    named = {"list": ("first_paint", "largest_paint"), "curves": ("seen",)}
    metrics: dict[str, Any] = {"chromium": "1", "point_median": 1.1, "point_worst": 1.9}
    for name in named.get(cell, ()):
        metrics[f"{name}_median"], metrics[f"{name}_worst"] = SECONDS[name]
    return metrics


@pytest.fixture
def results(tmp_path: Path) -> ResultsFile:
    made = choose(tmp_path, quick=False, fresh=False, what="page")
    for cell in CELLS:
        made.add(cell, example_metrics(cell), seconds=1.0)
    return made


def test_each_cell_is_compared_with_its_target(results: ResultsFile) -> None:
    summary = report.summary(results)
    assert {cell: summary[cell]["met"] for cell in CELLS} == {
        "list": True,  # its median, whatever the worst visit
        "live": True,
        "curves": False,  # below a second, not at it
    }
    assert summary.keys() == {*CELLS, "processor", "dates", "commits", "versions"}
    assert json.loads(json.dumps(summary)) == summary


def test_one_late_point_misses_the_target(results: ResultsFile) -> None:
    results.add("live", example_metrics("live") | {"point_worst": 2.1}, seconds=1.0)
    assert not report.summary(results)["live"]["met"]


@pytest.mark.slow
def test_stored_jobs_are_listed_and_have_curves(database: Database) -> None:
    stored.store_jobs(database, jobs=5, steps=10)
    job_id = stored.store_long_job(database, points=400)
    with database.read() as session:
        jobs = repository.list_jobs(session, after=None, limit=10).jobs
        small = curves.sample_loss_curves(session, jobs)
        long = curves.list_curves(session, job_id, max_points=1000)
    assert len(jobs) == 6
    assert {job.state for job in jobs} == {"succeeded"}
    assert all(len(small[job.id]) > 1 for job in jobs)
    assert {curve.name: curve.points for curve in long.data} == dict.fromkeys(stored.CURVES, 100)
    assert long.seq == 401
