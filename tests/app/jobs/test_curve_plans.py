"""SQLite uses the index for sparklines, although it has no statistics about the points."""

from typing import Any

import pytest
from sqlalchemy import Connection, event

from app.database.engines import Database
from app.jobs import repository
from app.jobs.results import curves
from tests.job_rows import add_job


@pytest.fixture
def database_kind() -> str:
    return "sqlite"


def test_a_sparkline_never_reads_all_points(database: Database) -> None:
    for _ in range(3):
        add_job(database, step=100_000)
    plans: list[str] = []

    def explain(connection: Connection, _: Any, statement: str, given: Any, *__: Any) -> None:
        if "metric_points" in statement and not statement.startswith("EXPLAIN"):
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given)
            plans.extend(row[3] for row in rows if "metric_points" in row[3])

    with database.read() as session:
        jobs = repository.list_jobs(session, after=None, limit=10).jobs
        event.listen(database.read_engine, "before_cursor_execute", explain)
        assert curves.sample_loss_curves(session, jobs) == {}
    assert len(plans) == 2
    for plan in plans:
        assert plan.startswith("SEARCH")
        assert plan.endswith("(job_id=? AND split=? AND name=? AND step<?)")
