"""Workers send to MLflow beside their jobs."""

from collections.abc import Iterator

import pytest

from app.database.engines import Database
from app.outbox import repository as outbox
from app.queue.enums import JobState
from app.resources import Resources
from app.settings import Settings
from tests.job_rows import add_job, get_state
from tests.mlflow_rows import make_due, run_row, server
from tests.mlflow_server import MlflowStandIn, mlflow_stand_in
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from tests.worker.test_job_runner import GOOD
from worker import mlflow as worker_mlflow
from worker.service import WorkerService, open_service


@pytest.fixture
def mlflow() -> Iterator[MlflowStandIn]:
    with mlflow_stand_in() as running:
        yield running


@pytest.fixture
def service(
    settings: Settings, mlflow: MlflowStandIn, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WorkerService]:
    """A worker that runs."""
    monkeypatch.setattr(worker_mlflow, "POLL_SECONDS", 0.05)
    monkeypatch.setattr("app.mlflow.sender.PROGRESS_SECONDS", 0.1)
    scripted(*GOOD)
    changes = {"mlflow_tracking_uri": mlflow.url, "fork_server": False}
    opened = open_service(settings.model_copy(update=changes))
    opened.start()
    yield opened
    opened.requeue_jobs_and_wait()
    opened.close()


def wait_until_sent(database: Database, job_id: object) -> None:
    wait_until(
        lambda: run_row(database, job_id).state == "sent",  # type: ignore[arg-type]
        what="the run",
    )


@pytest.mark.usefixtures("service")
def test_a_job_arrives(resources: Resources, mlflow: MlflowStandIn) -> None:
    wait_until(lambda: mlflow.experiments, what="the experiment")
    job_id = add_job(resources.database)
    with resources.database.write() as session:
        outbox.add_mlflow_run(session, job_id)
    wait_until_sent(resources.database, job_id)
    run = mlflow.run_of(job_id)
    assert run.status == "FINISHED"
    assert [step for step, _ in run.curve("train/loss")] == [1, 2, 3, 4, 5]
    assert run.params["method.type"] == "lora"
    assert any(name.startswith("test/") for name, *_ in run.metrics)


def test_a_slow_server_delays_no_job(
    resources: Resources, mlflow: MlflowStandIn, request: pytest.FixtureRequest
) -> None:
    mlflow.respond.clear()
    database = resources.database
    job_id = add_job(database)
    request.getfixturevalue("service")
    mlflow.wait_for_call("experiments/get-by-name")
    wait_until(lambda: get_state(database, job_id) is JobState.SUCCEEDED, what="the job")
    assert mlflow.runs == {}
    mlflow.respond.set()
    make_due(database)
    wait_until_sent(database, job_id)
    assert mlflow.run_of(job_id).status == "FINISHED"
    assert server(database).failures == 0
