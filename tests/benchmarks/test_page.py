"""The benchmark of the page: what is told from a few cells, and the rows that it stores."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.database.engines import Database
from app.jobs import repository
from app.jobs.results import curves
from benchmarks.kept import Kept, choose
from benchmarks.page import cells, report, stored
from benchmarks.page.listening_worker import heard
from benchmarks.page.plan import CELLS, TARGETS
from tests.app.conftest import database, database_kind, migrated, resources, settings

__all__ = ["database", "database_kind", "migrated", "resources", "settings"]

SECONDS = {"first_paint": (0.4, 0.6), "largest_paint": (0.5, 1.2), "seen": (1.0, 1.1)}


def invented(cell: str) -> dict[str, Any]:
    """Figures of a cell that nobody measured."""
    named = {"list": ("first_paint", "largest_paint"), "curves": ("seen",)}
    figures: dict[str, Any] = {"chromium": "1", "point_median": 1.1, "point_worst": 1.9}
    for name in named.get(cell, ()):
        figures[f"{name}_median"], figures[f"{name}_worst"] = SECONDS[name]
    return figures


@pytest.fixture
def results(tmp_path: Path) -> Kept:
    made = choose(tmp_path, quick=False, fresh=False, what="page")
    for cell in CELLS:
        made.keep(cell, invented(cell), seconds=1.0)
    return made


def test_each_cell_is_held_to_the_figure_that_counts(results: Kept) -> None:
    told = report.summary(results)
    assert {cell: told[cell]["met"] for cell in CELLS} == {
        "list": True,  # its median, whatever the worst visit
        "live": True,
        "curves": False,  # below a second, not at it
    }
    assert told.keys() == {*CELLS, "processor", "versions", "date"}
    assert json.loads(json.dumps(told)) == told


def test_a_point_that_comes_late_once_misses_the_target(results: Kept) -> None:
    results.keep("live", invented("live") | {"point_worst": 2.1}, seconds=1.0)
    assert not report.summary(results)["live"]["met"]


def test_the_table_has_each_figure_and_each_target_once(results: Kept) -> None:
    lines = report.table(report.summary(results)).splitlines()
    (largest,) = (each for each in lines if "largest_paint" in each)
    assert largest.split() == ["largest_paint", "0.5", "1.2"]
    for name, below in TARGETS.values():
        assert sum(f"{name} < {below:g}" in each for each in lines) == 1
    assert sum("missed" in each for each in lines) == 1


def test_delays_are_those_of_every_step(tmp_path: Path) -> None:
    (tmp_path / "heard").write_text("2 100.5\n4 101.0\n")
    steps = heard(tmp_path / "heard")
    assert cells.delays(steps, {4: 102.5, 2: 101.0, 6: 103.0}) == [0.5, 1.5]
    with pytest.raises(AssertionError, match=r"never on the screen: \[4\]"):
        cells.delays(steps, {2: 101.0})


def test_stored_jobs_are_a_list_and_a_long_one_has_its_curves(database: Database) -> None:
    stored.store_jobs(database, jobs=5, steps=10)
    job_id = stored.store_long_job(database, points=400)
    with database.read() as session:
        jobs = repository.list_page(session, after=None, limit=10).jobs
        small = curves.loss_sparklines(session, jobs)
        long = curves.list_curves(session, job_id, max_points=1000)
    assert len(jobs) == 6
    assert {job.state for job in jobs} == {"succeeded"}
    assert all(len(small[job.id]) > 1 for job in jobs)
    assert {curve.name: curve.points for curve in long.data} == dict.fromkeys(stored.CURVES, 100)
    assert long.seq == 401
