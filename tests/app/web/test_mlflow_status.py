"""The page of settings, and the links to MLflow on other pages."""

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from app.database.engines import Database
from app.mlflow.connection import MlflowConnection
from tests.app.web.html_elements import elements, visible_text
from tests.job_rows import claim_next
from tests.mlflow_rows import add_artifact, add_version, connect, create_job, finish, make_due, send
from tests.mlflow_server import MlflowStandIn, mlflow_stand_in

PAGE = {"Accept": "text/html"}
PLAN = {"parameters": {"trainable": 1, "total": 2, "exact": True}, "estimated_seconds": 9}


@pytest.fixture
def mlflow() -> Iterator[MlflowStandIn]:
    with mlflow_stand_in() as running:
        yield running


@pytest.fixture
def connection(database: Database, mlflow: MlflowStandIn) -> MlflowConnection:
    return connect(database, mlflow.url, "<b>texts</b>")


def text(client: TestClient, path: str = "/settings") -> str:
    shown = client.get(path, headers=PAGE)
    assert shown.status_code == 200, shown.text
    return shown.text


def links(page: str) -> list[str]:
    return [each["href"] for each in elements(page, "a") if "#/" in each["href"]]


def test_without_mlflow(client: TestClient) -> None:
    assert "LORAWORKS_MLFLOW_TRACKING_URI" in visible_text(text(client))


def test_connection(
    client: TestClient, database: Database, mlflow: MlflowStandIn, connection: MlflowConnection
) -> None:
    assert "No worker" in visible_text(text(client))
    mlflow.failures = [("", 500, b'{"error_code": "X", "message": "<i>no</i>"}')]
    send(database, connection)
    page = text(client)
    assert "failing" in visible_text(page)
    assert "<i>no" not in page
    make_due(database)
    send(database, connection)
    page = text(client)
    assert "connected" in visible_text(page)
    assert "<b>texts" not in page
    assert links(page) == [f"{mlflow.url}/#/experiments/1"]


def test_what_mlflow_rejected_is_on_the_pages_of_jobs_and_models(
    client: TestClient, database: Database, mlflow: MlflowStandIn, connection: MlflowConnection
) -> None:
    job_id = create_job(database, plan=PLAN)
    finish(database, claim_next(database).lease)
    add_version(database, add_artifact(database, job_id))
    refusal = b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "No <b>."}'
    mlflow.failures = [(path, 400, refusal) for path in ("runs/create", "model-versions/create")]
    send(database, connection)
    for path, call in ((f"/jobs/{job_id}", "runs"), ("/models/sentiment", "model-versions")):
        reason = f"MLflow rejected {call}/create: INVALID_PARAMETER_VALUE: No &lt;b&gt;."
        assert reason in text(client, path)


def test_links_on_the_pages_of_jobs_and_models(
    client: TestClient, database: Database, mlflow: MlflowStandIn, connection: MlflowConnection
) -> None:
    job_id = create_job(database, plan=PLAN)
    finish(database, claim_next(database).lease)
    add_version(database, add_artifact(database, job_id))
    for path in (f"/jobs/{job_id}", "/models/sentiment"):
        assert links(text(client, path)) == []
    send(database, connection)
    run_url = f"{mlflow.url}/#/experiments/1/runs/{mlflow.run_of(job_id).run_id}"
    assert links(text(client, f"/jobs/{job_id}")) == [run_url]
    version_url = f"{mlflow.url}/#/models/sentiment/versions/1"
    assert links(text(client, "/models/sentiment")) == [version_url, run_url]
