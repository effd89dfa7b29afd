"""A database of revision 0010 is readable under the new names.

`rows_of_0010.jsonl` was written by the last version with that schema: [table, row] on each line.
"""

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Connection, column, insert, select, table
from starlette.testclient import TestClient

from app.database import migrations
from app.database.engines import create_migration_engine
from app.idempotency.tables import IdempotencyKey
from app.jobs import resolve
from app.main import create_app
from app.queue.fencing import Lease
from app.queue.tables import Job
from app.queue.transitions import Preempted
from app.resources import Resources, open_resources
from app.settings import Settings
from app.sweeps.tables import Sweep, Trial
from lora_core.specs.train import TrainSpec
from tests.app.sweeps.fake_worker import FakeSweepWorker
from tests.servers import PostgresServer
from tests.slow import DATABASES

OLD = "0010"
ROWS = [
    json.loads(line)
    for line in Path(__file__).with_name("rows_of_0010.jsonl").read_text("utf-8").splitlines()
]
LORA = {"method": {"type": "lora", "r": 2, "alpha": 4}, "data": {"train_size": 100}}
SWEEP = {"job": {**LORA, "result": {"train_metrics": True}}, "space": {"method.alpha": [4, 8]}}


@pytest.fixture(scope="module", params=DATABASES)
def migrated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """A database of revision 0010, in use, that was upgraded."""
    server: PostgresServer | None = None
    url = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        url = server.empty_database()
    settings = Settings(data_dir=tmp_path_factory.mktemp("migrated"), database_url=url)
    migrations.upgrade(settings, OLD)
    engine = create_migration_engine(settings)
    with engine.begin() as connection:
        for name, row in ROWS:
            _insert(connection, name, row)
    engine.dispose()
    migrations.upgrade(settings)
    yield settings
    if server is not None:
        server.drop(settings.sqlalchemy_url)


def _insert(connection: Connection, name: str, row: dict[str, Any]) -> None:
    values = {
        each: bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
        for each, value in row.items()
    }
    if name == "idempotency_keys":
        values["created_at"] = time.time()  # otherwise expired
    connection.execute(insert(table(name, *map(column, values))).values(values))


@pytest.fixture
def settings(
    migrated: Settings, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Settings]:
    """A copy of it."""
    made = Settings(data_dir=tmp_path, allowed_hosts=("testserver",))
    if migrated.database_url is None:
        shutil.copytree(migrated.data_dir, tmp_path, dirs_exist_ok=True)
        yield made
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    url = server.copy(migrated.sqlalchemy_url)
    yield made.model_copy(update={"database_url": url})
    server.drop(url)


@pytest.fixture
def resources(settings: Settings) -> Iterator[Resources]:
    opened = open_resources(settings)
    yield opened
    opened.close()


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as running:
        yield running


@pytest.fixture
def worker(resources: Resources) -> FakeSweepWorker:
    return FakeSweepWorker(resources)


def jobs(client: TestClient) -> dict[str, dict[str, Any]]:
    """All jobs by name, with all fields."""
    found = client.get("/v1/jobs?include_trials=true&limit=100").json()["data"]
    return {job["name"]: client.get(f"/v1/jobs/{job['id']}").json() for job in found}


def sweeps(client: TestClient) -> dict[str, dict[str, Any]]:
    found = client.get("/v1/sweeps").json()["data"]
    return {sweep["name"]: client.get(f"/v1/sweeps/{sweep['id']}").json() for sweep in found}


def test_jobs_are_described_as_today(client: TestClient, resources: Resources) -> None:
    found = jobs(client)
    assert {job["spec"]["spec_version"] for job in found.values()} == {2}
    assert found["finished"]["spec"]["result"]["train_metrics"] is True
    assert found["halving 1"]["spec"]["trial"]["budget"] == 0.25
    verdict, stored = found["finished"]["verdict"], found["finished"]["summary"]["verdict"]
    assert (verdict["metric"], verdict["value"]) == ("accuracy", stored["accuracy"])
    assert (verdict["headline"], verdict["low"]) == (stored["headline"], stored["low"])
    assert (verdict["references"].keys(), verdict["never_predicted"]) == ({"linear"}, [])
    with resources.database.read() as session:
        for spec, version in session.execute(select(Job.spec, Job.spec_version)):
            assert TrainSpec.model_validate(spec).model_dump(mode="json") == spec
            assert (version, spec["task"]["type"]) == (2, "single_label")
        trials = session.scalars(select(Trial.job_columns)).all()
        stored = [columns["spec"] for columns in trials if columns]
        stored += session.scalars(select(Sweep.job)).all()
        assert {spec.get("task", {}).get("type") for spec in stored} <= {"single_label", None}


def test_error_codes_are_those_of_today(client: TestClient) -> None:
    found = jobs(client)
    assert found["failed"]["error"]["code"] == "malformed_row"
    assert found["waits for the reserve"]["waiting"]["code"] == "insufficient_disk_space"
    assert found["waits for the disk"]["waiting"]["code"] == "disk_full"
    codes = {
        name: [
            event["data"]["code"]
            for event in client.get(f"/v1/jobs/{job['id']}/events").json()["data"]
            if "code" in event["data"]
        ]
        for name, job in found.items()
    }
    assert codes["failed"] == ["malformed_row"]
    assert codes["waits for the reserve"] == ["insufficient_disk_space"]
    assert codes["waits for the disk"] == ["disk_full"]


def test_events_of_the_linear_model_have_their_kind(client: TestClient) -> None:
    job_id = jobs(client)["finished"]["id"]
    kinds = [event["kind"] for event in client.get(f"/v1/jobs/{job_id}/events").json()["data"]]
    assert "linear_model" in kinds
    assert "rival" not in kinds


def test_everything_else_is_still_there(client: TestClient) -> None:
    assert [each["name"] for each in client.get("/v1/datasets").json()["data"]] == ["mails"]
    (version,) = client.get("/v1/models/tone").json()["versions"]
    assert version["metrics"]["verdict"]["never_predicted"] == []
    assert version["job_id"] == jobs(client)["finished"]["id"]


def test_a_sweep_keeps_its_results(client: TestClient) -> None:
    sweep = sweeps(client)["finished"]
    assert (sweep["trial_count"], sweep["trial_counts"]["succeeded"]) == (2, 2)
    assert (sweep["max_parallel_jobs"], sweep["job"]["result"]) == (2, {"train_metrics": True})
    assert sweep["result"]["winner"]["number"] == 2
    trials = client.get(f"/v1/sweeps/{sweep['id']}/trials").json()
    assert [(each["number"], each["reused"]) for each in trials] == [(1, True), (2, False)]
    assert trials[1]["metrics"]["test"]["accuracy"] > 0.5
    assert client.get(f"/sweeps/{sweep['id']}").status_code == 200


def test_the_same_sweep_again_trains_nothing(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolve, "TRAINING_VERSION", 4)  # of the runs whose results are stored
    assert client.post("/v1/sweeps?dry_run=true", json=SWEEP).json()["reused"] == 2
    again = client.post("/v1/sweeps", json=SWEEP).json()
    assert client.get(f"/v1/sweeps/{again['id']}").json()["state"] == "finished"
    trials = client.get(f"/v1/sweeps/{again['id']}/trials").json()
    assert [trial["reused"] for trial in trials] == [True, True]


def test_a_repeated_request_gets_the_stored_response(
    client: TestClient, resources: Resources
) -> None:
    again = client.post(
        "/v1/jobs",
        json={**LORA, "name": "queued", "priority": -5},
        headers={"Idempotency-Key": "job"},
    )
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json()["id"] == jobs(client)["queued"]["id"]
    assert again.json()["spec"] == jobs(client)["queued"]["spec"]
    with resources.database.read() as session:
        sweep = session.scalars(
            select(IdempotencyKey.response_body).where(IdempotencyKey.key == "sweep")
        ).one()
    later = {"planned_trial_count"}  # fields that were added since the response was stored
    assert {*sweep, *later} == sweeps(client)["finished"].keys()
    assert later.isdisjoint(sweep)
    assert sweep["job"] == sweeps(client)["finished"]["job"]


def test_queued_jobs_run(client: TestClient, worker: FakeSweepWorker) -> None:
    worker.run_jobs()
    assert jobs(client)["queued"]["state"] == "succeeded"


def test_a_running_trial_resumes_from_its_checkpoint(
    client: TestClient, worker: FakeSweepWorker
) -> None:
    job_id = UUID(jobs(client)["halving 1"]["id"])
    worker.finish(Lease(job_id, 1, worker.owner.id, 60), Preempted())
    while (claimed := worker.claim_next()) is not None:
        if claimed.lease.job_id == job_id:
            assert claimed.checkpoint is not None
            assert (claimed.checkpoint.step, claimed.spec["trial"]["budget"]) == (5, 0.25)
        worker.run_job(claimed)
    sweep = sweeps(client)["halving"]
    assert (sweep["state"], sweep["strategy"]["trials"]) == ("finished", 3)
    assert sweep["strategy"].items() >= {"min_budget": 0.25, "min_full_runs": 1}.items()


def test_the_way_down_restores_every_value(settings: Settings) -> None:
    migrations.downgrade(settings, OLD)
    engine = create_migration_engine(settings)
    with engine.connect() as connection:
        for name in {name for name, _ in ROWS}:
            wanted = [row for each, row in ROWS if each == name]
            found = connection.execute(select(table(name, *map(column, wanted[0])))).mappings()
            rows = [dict(row) for row in found if row.get("name") != "local"]
            assert sorted(map(_plain, rows)) == sorted(map(_plain, wanted)), name
    engine.dispose()


def _plain(row: Mapping[str, Any]) -> str:
    """The row as text that does not depend on the database."""
    values = {name: _plain_value(value) for name, value in row.items()}
    if "response_body" in values or "answer" in values:
        values["created_at"] = None  # the test sets it
    # the version of then wrote one of two codes for what is one now
    return json.dumps(values, sort_keys=True).replace("storage_full", "disk_full")


def _plain_value(value: Any) -> Any:
    match value:
        case UUID():
            return value.hex
        case bytes():
            return {"hex": value.hex()}
        case bool():
            return int(value)
        case str() if value.startswith(("{", "[")):
            return json.loads(value)
    return value
