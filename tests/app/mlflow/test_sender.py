"""What arrives in MLflow of jobs, sweeps and models, whatever happens in between."""

import threading
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
import structlog
from sqlalchemy import delete, func, select, text

from app.database.base import new_id
from app.database.engines import Database
from app.jobs import repository as jobs
from app.mlflow import client, repository, sender, views
from app.mlflow.connection import MlflowConnection
from app.outbox.tables import MlflowModelChange, MlflowRun
from app.queue.enums import JobKind
from app.queue.tables import Job, MetricPoint
from app.queue.transitions import AttemptResult, Cancelled, PermanentFailure
from app.registry import service as registry
from app.resources import Resources
from app.sweeps.states import SweepState
from app.sweeps.tables import Sweep
from tests.job_rows import SPEC, add_job, claim_next, preempt
from tests.mlflow_rows import (
    PUBLIC_URL,
    add_artifact,
    add_version,
    connect,
    create_job,
    finish,
    log_points,
    make_due,
    move_alias,
    run_row,
    send,
    server,
)
from tests.mlflow_server import MlflowStandIn
from tests.servers import free_port
from tests.slow import on_both_databases, on_sqlite_first
from tests.waiting import wait_until

SendAll = Callable[[], None]


def is_due(database: Database) -> bool:
    with database.read() as session:
        return repository.has_due_work(session)


def changes_left(database: Database) -> int:
    with database.read() as session:
        return session.scalars(select(func.count()).select_from(MlflowModelChange)).one()


# Jobs


@on_both_databases
def test_a_job_is_a_run(database: Database, mlflow: MlflowStandIn, send_all: SendAll) -> None:
    job_id = create_job(
        database, name="first", tags=["night"], notes="Try it.", user_metadata={"team": "a/b"}
    )
    send_all()
    assert mlflow.runs == {}  # it has not started
    lease = claim_next(database).lease
    send_all()
    run = mlflow.run_of(job_id)
    assert (run.name, run.status, run.params, run.metrics) == ("first", "RUNNING", {}, [])
    log_points(database, lease, range(1, 4))
    log_points(database, lease, range(3, 4), name="accuracy", split="validation")
    send_all()
    assert run.curve("train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert run.curve("validation/accuracy") == [(3, 1 / 3)]
    assert run.params["method.type"] == "lora"
    assert run.params["method.r"] == str(SPEC["method"]["r"])
    summary: dict[str, Any] = {
        "test": {"accuracy": 0.9, "per_class": {}, "loss": None},
        "model_version": "sentiment:3",
        "verdict": {"headline": "It learned."},
    }
    finish(database, lease, **summary)
    send_all()
    assert run.status == "FINISHED"
    assert run.end_time is not None
    assert run.end_time >= run.start_time > 1_700_000_000_000
    assert run.curve("best/test/accuracy") == [(3, 0.9)]
    assert run.tags == {
        "loraworks.id": str(job_id),
        "loraworks.job_id": str(job_id),
        "loraworks.url": f"{PUBLIC_URL}/jobs/{job_id}",
        "loraworks.method": "lora",
        "loraworks.base": "minilm-l6",
        "loraworks.dataset": SPEC["data"]["source"],
        "loraworks.tags": "night",
        "loraworks.metadata.team": "a/b",
        "mlflow.note.content": f"[Job {job_id}]({PUBLIC_URL}/jobs/{job_id})\n\nTry it.",
        "mlflow.source.name": "loraworks",
        "loraworks.state": "succeeded",
        "loraworks.model_version": "sentiment:3",
        "loraworks.verdict": "It learned.",
        "loraworks.attempts": "1",
    }
    make_due(database)
    assert not is_due(database)
    assert run_row(database, job_id).state == "sent"
    assert server(database).failures == 0


@pytest.mark.parametrize(
    ("result", "status", "tag"),
    [
        (PermanentFailure("one_class", "Only one label."), "FAILED", "one_class"),
        (Cancelled(), "KILLED", None),
    ],
)
def test_jobs_that_do_not_succeed(
    result: AttemptResult,
    status: str,
    tag: str | None,
    database: Database,
    mlflow: MlflowStandIn,
    send_all: SendAll,
) -> None:
    job_id = create_job(database)
    finish(database, claim_next(database).lease, result)
    send_all()
    run = mlflow.run_of(job_id)
    assert (run.status, run.tags.get("loraworks.error_code")) == (status, tag)


def test_a_job_that_never_started(
    database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    job_id = create_job(database)
    with database.write() as session:
        jobs.request_cancel(session, job_id)
    send_all()
    assert mlflow.run_of(job_id).status == "KILLED"


@pytest.mark.usefixtures("connection")
def test_prediction_runs_are_no_runs(database: Database) -> None:
    with database.write() as session:
        for kind in JobKind:
            row = Job(
                id=new_id(), created_by=UUID(int=0), user_metadata={}, method="lora", spec=SPEC,
                device_class="cpu", spec_version=2, dataset_ids={}, base="", kind=kind,
            )  # fmt: skip
            jobs.add_job_with_first_event(session, row)
    with database.read() as session:
        (run,) = session.scalars(select(MlflowRun))
        assert session.get_one(Job, run.id).kind == JobKind.TRAINING


def test_without_mlflow_nothing_is_kept(database: Database) -> None:
    job_id = create_job(database)
    add_version(database, add_artifact(database, job_id))
    with database.read() as session:
        assert session.scalars(select(MlflowRun)).all() == []
    assert changes_left(database) == 0


def test_what_existed_before_the_setting(database: Database, mlflow: MlflowStandIn) -> None:
    """Unfinished jobs and all versions are sent, jobs that had ended are not."""
    ended, running = add_job(database), add_job(database)
    finish(database, claim_next(database).lease)
    claim_next(database)
    add_version(database, add_artifact(database, ended))
    connection = connect(database, mlflow.url)
    assert send(database, connection)
    assert mlflow.run_of(running).status == "RUNNING"
    assert len(mlflow.runs) == 1
    assert mlflow.models["sentiment"].versions["1"].run_id is None


def test_points_of_a_resumed_job_arrive_once(
    database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    job_id = create_job(database)
    lease = claim_next(database).lease
    log_points(database, lease, range(1, 6))
    send_all()
    preempt(database, lease)
    lease = claim_next(database).lease  # without a checkpoint: the points are deleted
    log_points(database, lease, range(1, 9))
    send_all()
    assert mlflow.run_of(job_id).curve("train/loss") == [(step, 1 / step) for step in range(1, 9)]


def test_many_points_are_sent_in_batches(
    database: Database,
    mlflow: MlflowStandIn,
    send_all: SendAll,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sender, "METRICS_PER_BATCH", 4)
    monkeypatch.setattr(client, "PARAMS_PER_BATCH", 10)
    job_id = create_job(database)
    lease = claim_next(database).lease
    log_points(database, lease, range(1, 11))
    send_all()
    run = mlflow.run_of(job_id)
    assert [step for step, _ in run.curve("train/loss")] == list(range(1, 11))
    assert len(run.params) > 10
    assert mlflow.calls.count("runs/log-batch") >= 3 + len(run.params) // 10


def test_values_that_mlflow_would_reject(
    database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    targets = {"../über #1": {"type": "single_label"}}
    spec = {**SPEC, "task": {"type": "several_targets", "targets": targets}, "base": "b" * 900}
    job_id = create_job(database, spec=spec, name="n" * 200, notes="n" * 9000)
    lease = claim_next(database).lease
    with database.write() as session:
        session.get_one(Job, job_id).spec = spec
    log_points(database, lease, range(1, 2), name="../über #1/accuracy")
    log_points(database, lease, range(2, 3), name="grad_norm")
    with database.write() as session:
        for point in session.scalars(select(MetricPoint)):
            if point.name == "grad_norm":
                point.value, point.nonfinite = None, True
    finish(database, lease)
    send_all()
    run = mlflow.run_of(job_id)
    assert run.status == "FINISHED"
    assert run.params["base"] == "b" * 500
    assert run.curve("train/_/über _1/accuracy") == [(1, 1.0)]
    assert run.curve("train/grad_norm") == [(2, "NaN")]


# Sweeps


def add_sweep(database: Database) -> UUID:
    sweep = Sweep(
        created_by=UUID(int=0), name="grid", user_metadata={}, job={}, space=[],
        strategy={"type": "grid"}, resolved_inputs={}, objective="accuracy",
    )  # fmt: skip
    with database.write() as session:
        session.add(sweep)
    return sweep.id


@on_sqlite_first
def test_trials_are_nested_in_the_run_of_their_sweep(
    database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    sweep_id = add_sweep(database)
    trials = [create_job(database, sweep_id=sweep_id) for _ in range(2)]
    for _ in trials:
        finish(database, claim_next(database).lease)
    send_all()
    parent = mlflow.run_of(sweep_id)
    assert (parent.name, parent.status) == ("grid", "RUNNING")
    assert parent.tags["loraworks.objective"] == "accuracy"
    for job_id in trials:
        assert mlflow.run_of(job_id).tags["mlflow.parentRunId"] == parent.run_id
    for state, status in (
        (SweepState.FINISHED, "FINISHED"),
        (SweepState.RUNNING, "RUNNING"),  # it was extended
        (SweepState.STOPPED, "KILLED"),
    ):
        with database.write() as session:
            session.get_one(Sweep, sweep_id).state = state
        send_all()
        assert parent.status == status
    with database.write() as session:
        session.execute(delete(Sweep))
    send_all()
    assert (parent.status, run_row(database, sweep_id).state) == ("KILLED", "sent")


def test_a_sweep_that_was_rejected_once(
    database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    sweep_id = add_sweep(database)
    create_job(database, sweep_id=sweep_id)
    claim_next(database)
    send_all()
    mlflow.failures = [("runs/update", 400, b'{"error_code": "INVALID_STATE"}')]
    with database.write() as session:
        session.get_one(Sweep, sweep_id).state = SweepState.FINISHED
    send_all()
    assert run_row(database, sweep_id).failures == 1
    mlflow.failures = []
    send_all()
    row = run_row(database, sweep_id)
    assert (row.status, row.failures, row.last_error) == ("FINISHED", 0, None)


# Deleted jobs


@on_sqlite_first
def test_a_job_that_is_deleted_before_its_end_was_sent(
    database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    sent, unsent = create_job(database), create_job(database)
    lease = claim_next(database).lease
    send_all()
    finish(database, lease, Cancelled())
    finish(database, claim_next(database).lease, Cancelled())
    with database.write() as session:
        session.execute(delete(Job))
    send_all()
    run = mlflow.run_of(sent)
    assert (run.status, run.tags["loraworks.deleted"]) == ("KILLED", "true")
    assert run.end_time is not None
    assert len(mlflow.runs) == 1
    assert {run_row(database, each).state for each in (sent, unsent)} == {"sent"}


# Models


@on_sqlite_first
def test_versions_and_aliases(
    resources: Resources, database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    job_id = create_job(database)
    finish(database, claim_next(database).lease)
    artifact = add_artifact(database, job_id)
    assert add_version(database, artifact) == 1
    send_all()
    model = mlflow.models["sentiment"]
    version = model.versions["1"]
    url = f"{PUBLIC_URL}/models/sentiment#version-1"
    assert version.source == "loraworks:/sentiment/1"
    assert version.run_id == mlflow.run_of(job_id).run_id
    assert version.description == f"[sentiment:1 of loraworks]({url}). It learned."
    assert version.tags["loraworks.url"] == url
    assert version.tags["loraworks.version"] == "sentiment:1"
    assert version.tags["loraworks.job_id"] == str(job_id)
    assert version.tags["test/accuracy"] == "0.9"
    add_version(database, artifact)
    move_alias(database, "production", 1)
    send_all()
    assert model.aliases == {"production": "1"}
    move_alias(database, "production", 2)
    move_alias(database, "latest", 2)  # a name that MLflow reserves
    move_alias(database, "v1", 2)
    send_all()
    assert model.aliases == {"production": "2"}
    move_alias(database, "production", 1, rollback=True)
    send_all()
    assert model.aliases == {"production": "1"}
    with database.write() as session:
        for alias in ("production", "latest", "v1"):
            registry.delete_alias(session, name="sentiment", alias=alias)
        registry.delete_version(session, name="sentiment", number=1, store=resources.store)
    send_all()
    assert model.aliases == {}
    assert "loraworks.deleted" in model.versions["1"].tags
    assert "loraworks.deleted" not in model.versions["2"].tags
    assert add_version(database, artifact) == 3
    move_alias(database, "production", 3)
    send_all()
    assert (sorted(model.versions), model.aliases) == (["1", "2", "3"], {"production": "3"})
    assert changes_left(database) == 0


def test_numbers_of_mlflow_may_differ(
    resources: Resources, database: Database, mlflow: MlflowStandIn
) -> None:
    """MLflow counts by itself: it never had the version that was deleted before."""
    artifact = add_artifact(database, None)
    for _ in range(2):
        add_version(database, artifact)
    with database.write() as session:
        registry.delete_version(session, name="sentiment", number=1, store=resources.store)
    move_alias(database, "production", 2)
    send(database, connect(database, mlflow.url))
    model = mlflow.models["sentiment"]
    assert model.aliases == {"production": "1"}
    assert model.versions["1"].tags["loraworks.version"] == "sentiment:2"


# Servers that are away, slow or wrong


@on_sqlite_first
def test_a_week_without_the_server(
    database: Database, mlflow: MlflowStandIn, connection: MlflowConnection
) -> None:
    """All arrives in order, and one row per job and change is all that is kept."""
    away = MlflowConnection(f"http://127.0.0.1:{free_port()}", "loraworks")
    with database.write() as session:
        repository.register_server_and_fill_outbox(session, away)
    job_ids = [create_job(database) for _ in range(3)]
    for number, job_id in enumerate(job_ids, 1):
        lease = claim_next(database).lease
        log_points(database, lease, range(1, 4))
        finish(database, lease)
        add_version(database, add_artifact(database, job_id))
        move_alias(database, "production", number)
        make_due(database)
        assert send(database, away)
    row = server(database)
    assert row.last_error_code == "mlflow_unreachable"
    assert "did not respond" in (row.last_error or "")
    assert row.lease_expires_at is None
    assert not send(database, away)  # it waits
    assert changes_left(database) <= 2 * len(job_ids)
    with database.write() as session:
        session.get_one(type(row), row.id).tracking_uri = mlflow.url  # the server is back
    make_due(database)
    assert send(database, connection)
    assert [each.tags["loraworks.id"] for each in mlflow.runs.values()] == list(map(str, job_ids))
    assert [len(each.curve("train/loss")) for each in mlflow.runs.values()] == [3, 3, 3]
    model = mlflow.models["sentiment"]
    assert (sorted(model.versions), model.aliases) == (["1", "2", "3"], {"production": "3"})
    assert [each.run_id for each in model.versions.values()] == list(mlflow.runs)
    assert server(database).failures == 0


@pytest.mark.parametrize(
    ("status", "content", "code"),
    [
        (401, b"", "mlflow_unauthorized"),
        (403, b"Invalid Host header - possible DNS rebinding", "mlflow_host_not_allowed"),
        (403, b'{"error_code": "PERMISSION_DENIED"}', "mlflow_unauthorized"),
        (429, b'{"error_code": "REQUEST_LIMIT_EXCEEDED"}', "mlflow_unreachable"),
        (503, b"<html>", "mlflow_unreachable"),
        (302, b"", "mlflow_unexpected_response"),
        (404, b"<html>", "mlflow_unexpected_response"),
        (200, b"<html>", "mlflow_unexpected_response"),
        (200, b"[]", "mlflow_unexpected_response"),
        (200, b"{}", "mlflow_unexpected_response"),
        (200, b'{"experiment": {"experiment_id": "\\u0000"}}', "mlflow_unexpected_response"),
        (200, b'{"experiment": {"experiment_id": {}}}', "mlflow_unexpected_response"),
        (500, b'{"error_code": "INTERNAL_ERROR", "message": "\\u0000\\ud800"}', "mlflow_rejected"),
    ],
)
def test_wrong_answers_delay(
    status: int,
    content: bytes,
    code: str,
    database: Database,
    mlflow: MlflowStandIn,
    send_all: SendAll,
) -> None:
    job_id = create_job(database)
    finish(database, claim_next(database).lease)
    mlflow.failures = [("", status, content)]
    send_all()
    assert server(database).last_error_code == code
    assert mlflow.runs == {}
    send_all()
    assert mlflow.run_of(job_id).status == "FINISHED"
    assert server(database).failures == 0


def test_credentials_are_in_no_row_and_no_log_line(
    database: Database, mlflow: MlflowStandIn
) -> None:
    """Not even if the server repeats them."""
    connect(database, mlflow.url)
    secret = MlflowConnection(mlflow.url, "loraworks", "Bearer swordfish")
    create_job(database)
    claim_next(database)
    echo = b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "Bearer swordfish?"}'
    for path in ("experiments/get-by-name", "runs/create"):
        mlflow.failures = [(path, 400, echo)]
        make_due(database)
        with structlog.testing.capture_logs() as logs:
            assert send(database, secret)
        assert logs
        assert "swordfish" not in str(logs)
    with database.read() as session:
        (run,) = session.scalars(select(MlflowRun))
    for shown in (server(database).last_error or "", run.last_error or ""):
        assert shown.endswith("Bearer ***?.")
    assert set(mlflow.authorizations) == {"Bearer swordfish"}


def test_retries_wait_longer_up_to_a_minute(
    database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    waits = []
    for _ in range(8):
        mlflow.failures = [("", 503, b"")]
        send_all()
        row = server(database)
        waits.append(round(row.next_attempt_at - (row.last_error_at or 0)))
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]


def test_a_slow_server_times_out(
    database: Database,
    mlflow: MlflowStandIn,
    send_all: SendAll,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "REQUEST_SECONDS", 0.2)
    mlflow.respond.clear()
    send_all()
    assert "timed out" in (server(database).last_error or "")


def test_a_deleted_experiment(database: Database, mlflow: MlflowStandIn, send_all: SendAll) -> None:
    send_all()
    mlflow.deleted_experiments.add("loraworks")
    create_job(database)
    claim_next(database)
    send_all()
    assert server(database).last_error_code == "mlflow_experiment_deleted"


def test_a_run_that_is_rejected_delays_no_other(
    database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    rejected, other = create_job(database), create_job(database)
    for _ in range(2):
        finish(database, claim_next(database).lease)
    refusal = b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "No."}'
    mlflow.failures = [("runs/create", 400, refusal)]
    send_all()
    row = run_row(database, rejected)
    assert (row.state, row.failures) == ("pending", 1)
    assert row.last_error == "MLflow rejected runs/create: INVALID_PARAMETER_VALUE: No."
    assert mlflow.run_of(other).status == "FINISHED"
    assert server(database).failures == 0
    for _ in range(sender.MAX_REJECTIONS - 1):
        mlflow.failures = [("runs/create", 400, refusal)]
        send_all()
    assert run_row(database, rejected).state == "failed"
    mlflow.failures = []
    make_due(database)
    assert not is_due(database)


def test_a_model_given_up_keeps_changes_that_came_while_it_was_sent(
    database: Database, mlflow: MlflowStandIn, send_all: SendAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_version(database, add_artifact(database, None))
    refusal = b'{"error_code": "INVALID_PARAMETER_VALUE"}'
    mlflow.failures = [("registered-models/create", 400, refusal)] * sender.MAX_REJECTIONS
    for _ in range(sender.MAX_REJECTIONS - 1):
        send_all()
    assert changes_left(database) == 1
    ensure_model = client.MlflowClient.ensure_model

    def move_alias_and_send(self: client.MlflowClient, name: str) -> None:
        move_alias(database, "production", 1)
        ensure_model(self, name)

    monkeypatch.setattr(client.MlflowClient, "ensure_model", move_alias_and_send)
    send_all()
    assert changes_left(database) == 1
    monkeypatch.undo()
    mlflow.failures = []
    assert is_due(database)  # at once, not hours after the last rejection
    send_all()
    assert changes_left(database) == 0
    assert mlflow.models["sentiment"].aliases == {"production": "1"}


def test_errors_of_the_server_give_nothing_up(
    database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    job_id = create_job(database)
    finish(database, claim_next(database).lease)
    for _ in range(sender.MAX_REJECTIONS + 2):
        mlflow.failures = [("runs/create", 500, b'{"error_code": "INTERNAL_ERROR"}')]
        send_all()
        assert server(database).last_error_code == "mlflow_rejected"
    assert run_row(database, job_id).state == "pending"
    mlflow.failures = []
    send_all()
    assert mlflow.run_of(job_id).status == "FINISHED"


def test_a_server_that_lost_everything(
    database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    job_id = create_job(database)
    lease = claim_next(database).lease
    log_points(database, lease, range(1, 4))
    add_version(database, add_artifact(database, None))
    send_all()
    mlflow.forget()
    log_points(database, lease, range(4, 6))
    move_alias(database, "production", 1)
    for _ in range(2):
        send_all()
    assert len(mlflow.run_of(job_id).curve("train/loss")) == 5
    assert mlflow.run_of(job_id).params
    assert mlflow.models["sentiment"].aliases == {"production": "1"}


@pytest.mark.parametrize(
    "path",
    [
        "experiments/create",
        "runs/create",
        "runs/log-batch",
        "runs/update",
        "registered-models/create",
        "model-versions/create",
        "registered-models/alias",
    ],
)
def test_a_lost_response_doubles_nothing(
    path: str, database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    """As if the process had died after the request, before it stored that it was sent."""
    job_id = create_job(database)
    lease = claim_next(database).lease
    log_points(database, lease, range(1, 4))
    finish(database, lease, test={"accuracy": 0.5})
    add_version(database, add_artifact(database, job_id))
    move_alias(database, "production", 1)
    mlflow.lost = [path]
    send_all()
    assert server(database).last_error_code == "mlflow_unreachable"
    send_all()
    (run,) = mlflow.runs.values()
    assert run.status == "FINISHED"
    assert run.curve("train/loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert len(run.metrics) == 4
    model = mlflow.models["sentiment"]
    assert (list(model.versions), model.aliases) == (["1"], {"production": "1"})
    assert len(mlflow.experiments) == 1


# Several workers


def test_one_worker_sends_at_a_time(
    database: Database, mlflow: MlflowStandIn, connection: MlflowConnection
) -> None:
    create_job(database)
    finish(database, claim_next(database).lease)
    mlflow.respond.clear()
    sending = threading.Thread(target=send, args=(database, connection))
    sending.start()
    mlflow.wait_for_call("experiments/get-by-name")
    assert not send(database, connection)
    mlflow.respond.set()
    sending.join()
    assert len(mlflow.runs) == 1


@on_both_databases
def test_a_worker_that_lost_the_lease_writes_nothing(
    database: Database, mlflow: MlflowStandIn, connection: MlflowConnection
) -> None:
    job_id = create_job(database)
    finish(database, claim_next(database).lease)
    mlflow.respond.clear()
    sending = threading.Thread(target=send, args=(database, connection))
    sending.start()
    mlflow.wait_for_call("experiments/get-by-name")
    make_due(database)  # as if the lease had run out
    with database.write() as session:
        assert repository.claim_server(session, connection) is not None
    mlflow.respond.set()
    sending.join()
    assert mlflow.runs == {}
    assert run_row(database, job_id).state == "pending"


def test_a_worker_that_lost_the_lease_at_its_end(
    database: Database, connection: MlflowConnection
) -> None:
    create_job(database)
    claim_next(database)

    def should_stop() -> bool:
        make_due(database)
        with database.write() as session:
            return repository.claim_server(session, connection) is not None

    assert sender.send_due(database, connection, public_url="", should_stop=should_stop)
    assert server(database).attempts == 2
    assert server(database).lease_expires_at is not None


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_new_settings_fence_a_worker_that_claims_at_the_same_time(
    database: Database, connection: MlflowConnection
) -> None:
    def is_waiting() -> bool:
        with database.read() as session:
            waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            return bool(session.scalar(waits))

    starting = threading.Thread(target=connect, args=(database, "http://other.example"))
    with database.write() as session:
        claimed = repository.claim_server(session, connection)
        starting.start()
        wait_until(is_waiting, what="the lock")
    starting.join()
    assert claimed is not None
    with database.write() as session, pytest.raises(repository.MlflowLeaseLost):
        repository.renew_lease_and_update_server(session, claimed.attempt)


def test_a_long_backlog_shows_as_connected(
    database: Database, connection: MlflowConnection
) -> None:
    with database.write() as session:
        claimed = repository.claim_server(session, connection)
        assert claimed is not None
        row = repository.find_server(session)
        assert row is not None
        row.seen_at, row.failures = 0.0, 3
    with database.write() as session:
        repository.renew_lease_after_success(session, claimed.attempt)
    with database.read() as session:
        assert views.get_status(session).state == "connected"


def test_workers_that_start_again_add_no_rows(
    database: Database, connection: MlflowConnection
) -> None:
    add_version(database, add_artifact(database, None))
    connect(database, connection.tracking_uri)
    assert changes_left(database) == 1


@on_both_databases
def test_a_worker_with_former_settings_sends_nothing(
    database: Database, mlflow: MlflowStandIn, connection: MlflowConnection
) -> None:
    lease_of_job = create_job(database)
    claim_next(database)
    assert send(database, connection)
    add_version(database, add_artifact(database, None))
    later = connect(database, mlflow.url, "other")
    make_due(database)
    assert not send(database, connection)
    assert send(database, later)
    runs = [each for each in mlflow.runs.values() if each.tags["loraworks.id"] == str(lease_of_job)]
    assert [each.experiment_id for each in runs] == ["1", "2"]
    assert list(mlflow.models["sentiment"].versions) == ["1"]


@on_both_databases
def test_other_settings_send_the_jobs_whose_end_was_not_sent(
    database: Database, mlflow: MlflowStandIn
) -> None:
    """The address was wrong while jobs ended, or MLflow rejected them. What was sent stays."""
    create_job(database)
    finish(database, claim_next(database).lease)
    half_sent = create_job(database)
    lease = claim_next(database).lease
    assert send(database, connect(database, mlflow.url))
    finish(database, lease)
    sweep_id = add_sweep(database)
    rejected, unsent, deleted = (create_job(database, sweep_id=sweep_id) for _ in range(3))
    for _ in range(3):
        finish(database, claim_next(database).lease)
    with database.write() as session:
        session.execute(delete(Job).where(Job.id == deleted))
    wrong = connect(database, f"http://127.0.0.1:{free_port()}")
    assert send(database, wrong)
    assert server(database).last_error_code == "mlflow_unreachable"
    with database.write() as session:
        row = session.get_one(MlflowRun, rejected)
        row.state, row.failures, row.last_error = "failed", sender.MAX_REJECTIONS, "No."
    assert send(database, connect(database, mlflow.url, "other"))
    runs = [each for each in mlflow.runs.values() if each.experiment_id == "2"]
    assert {each.tags["loraworks.id"]: each.status for each in runs} == {
        str(half_sent): "FINISHED",
        str(sweep_id): "RUNNING",
        str(rejected): "FINISHED",
        str(unsent): "FINISHED",
    }
    parent = mlflow.run_of(sweep_id).run_id
    assert mlflow.run_of(unsent).tags["mlflow.parentRunId"] == parent
    with database.read() as session:
        assert repository.count_backlog(session) == repository.Backlog(0, 0, 0)


@on_sqlite_first
def test_waits_end_after_a_clock_step(database: Database, connection: MlflowConnection) -> None:
    del connection
    with database.write() as session:
        session.add(MlflowRun(id=new_id(), next_attempt_at=1e12))
        repository.find_server(session).next_attempt_at = 1e12  # type: ignore[union-attr]
        repository.find_server(session).lease_expires_at = 1e12  # type: ignore[union-attr]
    with database.write() as session:
        assert not repository.has_due_work(session)
        repository.make_waiting_rows_due(session)
        assert repository.has_due_work(session)
        assert len(repository.list_due_runs(session, after=None, limit=9)) == 1


def test_a_model_that_no_longer_exists_in_part(
    database: Database, mlflow: MlflowStandIn, send_all: SendAll
) -> None:
    """Somebody deleted the version in MLflow: it is created again when an alias moves to it."""
    add_version(database, add_artifact(database, None))
    send_all()
    mlflow.models["sentiment"].versions.clear()
    move_alias(database, "production", 1)
    for _ in range(2):
        send_all()
    assert mlflow.models["sentiment"].aliases == {"production": "1"}
