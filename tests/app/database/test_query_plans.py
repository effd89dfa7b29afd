"""Query plans of submit, claim, lists and garbage collection with many jobs.

The statements are those that are sent. SQLite reports its plan; PostgreSQL, which may scan a
table only without a usable index, reports how many rows it touched.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, event, select, update
from starlette.testclient import TestClient

from app.database.base import now
from app.database.engines import Database, open_database
from app.jobs import repository
from app.main import create_app
from app.queue import leases
from app.queue.enums import DeviceClass, JobKind, JobState
from app.queue.tables import Job
from app.retention import repository as retention
from app.retention.service import collect_garbage
from app.settings import Settings
from benchmarks.scale import stored
from benchmarks.scale.plan import Size
from tests.job_rows import ALICE
from tests.servers import PostgresServer
from tests.slow import MOSTLY_SQLITE

SIZE = Size(jobs=2000, queued=50, points=2000, models=40, trials=0, requests=0, lists=0, streams=0)
MOST_ROWS = 700  # rows that one statement may touch, of 2,000 jobs
LARGE = (
    *("jobs", "attempts", "job_events", "metric_points", "checkpoints", "artifacts"),
    *("model_versions", "trials"),
)
OF_FEW = ("ix_jobs_queue", "ix_jobs_lease")  # indexes of queued and running jobs
ASKS = re.compile(r"SELECT|WITH|UPDATE|DELETE")
NAMED = re.compile(rf"\b({'|'.join(LARGE)})\b")
STEP = re.compile(rf"(SCAN|SEARCH) ({'|'.join(LARGE)})\b(?: USING (?:COVERING )?INDEX (\S+))?(.*)")


@pytest.fixture(scope="module", params=MOSTLY_SQLITE)
def full(
    request: pytest.FixtureRequest, migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A database with many jobs."""
    made = Settings(data_dir=tmp_path_factory.mktemp("full"))
    server: PostgresServer | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        made = made.model_copy(update={"database_url": server.new_database()})
    else:
        shutil.copyfile(migrated, made.default_sqlite_path)
    database = open_database(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored, "PER_SWEEP", 50)
        stored.fill(database, SIZE)
    database.close()
    yield made
    if server is not None:
        server.drop(made.sqlalchemy_url)


@pytest.fixture
def filled(full: Settings, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """A copy of it."""
    made = Settings(data_dir=tmp_path / "data", allowed_hosts=("testserver",), engine="torch-fp32")
    made.data_dir.mkdir()
    if full.database_url is None:
        shutil.copyfile(full.default_sqlite_path, made.default_sqlite_path)
        yield made
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.copy(full.sqlalchemy_url)
    reluctant = f"{url}?options=-c%20enable_seqscan%3Doff"
    yield made.model_copy(update={"database_url": reluctant})
    server.drop(url)


@pytest.fixture
def app(filled: Settings) -> FastAPI:
    return create_app(filled.model_copy(update={"keep_artifact_days": 30}))


@pytest.fixture
def no_full_scans(app: FastAPI, client: TestClient) -> Iterator[Database]:
    """The database of the application. Fails at the end on full scans."""
    database: Database = app.state.resources.database
    look = _scans if database.write_engine.name == "sqlite" else _many_rows
    wrong: list[str] = []

    def explain(connection: Connection, _: Any, statement: str, given: Any, *__: Any) -> None:
        if ASKS.match(statement) and NAMED.search(statement):
            wrong.extend(f"{statement}\n{each}" for each in look(connection, statement, given))

    for engine in (database.read_engine, database.write_engine):
        event.listen(engine, "before_cursor_execute", explain)
    yield database
    assert not wrong, "\n\n".join(wrong)


def _scans(connection: Connection, statement: str, given: Any) -> Iterator[str]:
    """Return steps of SQLite plans that read every row, except those that stop at a limit."""
    cursor = connection.connection.cursor()
    cursor.execute(f"EXPLAIN QUERY PLAN {statement}", given)
    plan = [row[3] for row in cursor.fetchall()]
    stops = "LIMIT" in statement and not any("TEMP B-TREE FOR ORDER BY" in each for each in plan)
    for step in plan:
        found = STEP.match(step)
        if found is None or stops or found[3] in OF_FEW:
            continue
        if found[1] == "SCAN" or found[4].strip() == "(kind=?)":
            yield "\n".join(plan)


def _many_rows(connection: Connection, statement: str, given: Any) -> Iterator[str]:
    """Return steps of PostgreSQL plans that touched many rows."""
    cursor = connection.connection.cursor()
    cursor.execute("SAVEPOINT explain")
    cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", given)
    row = cursor.fetchone()
    cursor.execute("ROLLBACK TO SAVEPOINT explain")
    assert row is not None
    for node in _nodes(row[0][0]["Plan"]):
        if node.get("Relation Name") in LARGE:
            each = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            if each * node["Actual Loops"] > MOST_ROWS:
                yield json.dumps(node, indent=1)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from _nodes(below)


def test_submit_reads_few_rows(no_full_scans: Database, client: TestClient) -> None:
    response = client.post("/v1/jobs", json={"method": {"type": "lora"}})
    assert response.status_code == 202, response.text
    assert response.json()["queue_position"] == SIZE.queued + 1


def test_sweep_finds_each_trial_by_its_digest(no_full_scans: Database, client: TestClient) -> None:
    body = {"job": {"method": {"type": "lora"}}, "space": {"method.r": [2, 4, 8]}}
    assert client.post("/v1/sweeps", json=body).status_code == 202


def test_claim_reads_few_rows(no_full_scans: Database) -> None:
    with no_full_scans.write() as session:
        claimed = leases.claim_job(
            session, owner=ALICE, device_class=DeviceClass.CPU, device="cpu", lease_seconds=60
        )
    assert claimed is not None


def test_claim_of_a_named_job_reads_few_rows(no_full_scans: Database) -> None:
    with no_full_scans.write() as session:
        queued = select(Job.id).where(Job.state == JobState.QUEUED, Job.run_after <= now())
        job_id = session.scalars(queued.order_by(Job.id.desc()).limit(1)).one()
        claimed = leases.claim_job(
            session,
            owner=ALICE,
            device_class=DeviceClass.CPU,
            device="cpu",
            lease_seconds=60,
            job_id=job_id,
        )
    assert claimed is not None


def test_lists_read_few_rows(
    no_full_scans: Database, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "MAX_SCANNED", 200)
    monkeypatch.setattr(repository, "MAX_COUNTED", 200)
    with no_full_scans.read() as session:
        some = select(Job.id).where(Job.state == JobState.SUCCEEDED, Job.kind == JobKind.TRAINING)
        job_id = session.scalars(some.order_by(Job.id.desc()).limit(1)).one()
    found = [
        "jobs",
        "jobs?state=running",
        "jobs?state=failed&method=full&include_trials=false",
        "models",
    ]
    found += ["predictions?state=succeeded", "sweeps?limit=1", "datasets", f"jobs/{job_id}/events"]
    with no_full_scans.write() as session:
        tagged = session.scalars(some.limit(50)).all()
        session.execute(update(Job).where(Job.id.in_(tagged)).values(tags=["kept"]))
    found.append("jobs?tag=kept&state=succeeded")
    none = "jobs?search=nothing+like+it"
    for path in (*found, none):
        response = client.get(f"/v1/{path}")
        assert response.status_code == 200, response.text
        assert bool(response.json()["data"]) is (path != none), path
    pages = ["/", "/?include_trials=true", "/?tag=kept", f"/jobs/{job_id}", "/datasets/texts-1"]
    for path in (*pages, f"/v1/jobs/{job_id}/curves"):
        assert client.get(path).status_code == 200
    assert "200+ succeeded" in client.get("/").text


@pytest.mark.usefixtures("no_full_scans")
def test_garbage_collection_reads_few_rows_per_query(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "PAGE_SIZE", 15)
    result = collect_garbage(app.state.resources)
    assert len([each for each in result.removals if each.kind == "model"]) > SIZE.models / 2
