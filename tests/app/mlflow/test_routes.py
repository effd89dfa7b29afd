"""The state of MLflow and the run of a job, over HTTP."""

from collections.abc import Callable
from uuid import uuid4

import pytest
from sqlalchemy import delete, update
from starlette.testclient import TestClient

from app.auth.service import CreatedKey
from app.database.base import now
from app.database.engines import Database
from app.outbox.tables import MlflowModelChange, MlflowRun, MlflowServer
from app.queue.tables import Job
from app.resources import Resources
from app.retention import repository as retention
from app.retention.service import collect_garbage
from tests.job_rows import claim_next
from tests.mlflow_rows import add_artifact, add_version, create_job, finish
from tests.mlflow_server import MlflowStandIn

SendAll = Callable[[], None]


def test_without_mlflow(client: TestClient) -> None:
    status = client.get("/v1/mlflow").json()
    assert (status["state"], status["pending_runs"], status["tracking_uri"]) == ("off", 0, None)


@pytest.mark.usefixtures("connection")
def test_jobs_of_the_api_are_sent(
    client: TestClient, database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    body = {"method": {"type": "linear"}, "data": {"source": "rotten-tomatoes"}}
    job_id = client.post("/v1/jobs", json=body).json()["id"]
    assert client.get("/v1/mlflow").json()["state"] == "waiting"
    missing = client.get(f"/v1/mlflow/runs/{job_id}")
    assert (missing.status_code, missing.json()["code"]) == (404, "mlflow_run_not_found")
    with database.write() as session:
        session.execute(update(Job).values(started_at=now()))
    assert client.get("/v1/mlflow").json()["pending_runs"] == 1
    send_all()
    status = client.get("/v1/mlflow").json()
    assert (status["state"], status["pending_runs"], status["last_error"]) == (
        *("connected", 0, None),
    )
    assert status["experiment_url"] == f"{mlflow.url}/#/experiments/1"
    run = mlflow.run_of(job_id)
    assert client.get(f"/v1/mlflow/runs/{job_id}").json() == {
        "job_id": job_id,
        "run_id": run.run_id,
        "url": f"{mlflow.url}/#/experiments/1/runs/{run.run_id}",
        "status": "RUNNING",
        "complete": False,
        "last_error": None,
    }


def test_a_server_that_is_away(
    client: TestClient, database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    create_job(database)
    finish(database, claim_next(database).lease)
    add_version(database, add_artifact(database, None))
    mlflow.failures = [("", 503, b"")]
    send_all()
    status = client.get("/v1/mlflow").json()
    assert (status["state"], status["pending_runs"], status["pending_models"]) == ("failing", 1, 1)
    assert status["last_error"]["code"] == "mlflow_unreachable"
    assert status["next_attempt_at"] > status["last_error"]["at"]
    send_all()
    status = client.get("/v1/mlflow").json()
    assert (status["state"], status["pending_runs"], status["pending_models"]) == (
        *("connected", 0, 0),
    )
    assert status["last_error"] is not None  # it is kept


def test_no_worker_sends(client: TestClient, database: Database, send_all: SendAll) -> None:
    send_all()
    with database.write() as session:
        session.execute(update(MlflowServer).values(seen_at=now() - 3600))
    assert client.get("/v1/mlflow").json()["state"] == "waiting"


def test_an_id_that_is_none(client: TestClient) -> None:
    for job_id in ("nothing", str(uuid4())):
        missing = client.get(f"/v1/mlflow/runs/{job_id}")
        assert (missing.status_code, missing.json()["code"]) == (404, "mlflow_run_not_found")


def test_the_scope_is_required(
    anonymous_client: TestClient, new_key: Callable[..., CreatedKey]
) -> None:
    for scope, status in (("models:read", 403), ("jobs:read", 200)):
        headers = {"Authorization": f"Bearer {new_key(scope).text}"}
        assert anonymous_client.get("/v1/mlflow", headers=headers).status_code == status


def test_garbage_collection(resources: Resources, send_all: SendAll) -> None:
    database = resources.database

    def left() -> list[int]:
        with database.read() as session:
            tables = (MlflowServer, MlflowRun, MlflowModelChange)
            return [session.query(table).count() for table in tables]

    for _ in range(2):
        create_job(database)
    finish(database, claim_next(database).lease)
    send_all()
    collect_garbage(resources)
    assert left() == [1, 2, 0]
    with database.write() as session:
        session.execute(delete(Job))
    collect_garbage(resources)
    assert left() == [1, 1, 0]  # the other one is to be ended in MLflow
    add_version(database, add_artifact(database, None))
    with database.write() as session:
        silent = now() - retention.MLFLOW_SILENT_SECONDS - 1
        session.execute(update(MlflowServer).values(seen_at=silent))
    collect_garbage(resources)
    assert left() == [0, 0, 0]
