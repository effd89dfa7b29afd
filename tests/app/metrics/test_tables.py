"""Metrics from the database; the counts run on both databases."""

from collections.abc import Callable
from typing import get_args

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import update
from starlette.testclient import TestClient

from app.auth import service
from app.auth.tables import LOCAL_KEY_ID
from app.database.base import now
from app.database.engines import Database
from app.datasets.tables import Dataset
from app.queue import dispatch, heartbeats, leases
from app.queue.enums import DeviceClass, JobKind, JobState
from app.queue.tables import Attempt, Checkpoint, Worker
from app.queue.transitions import PermanentFailure, RetryableFailure
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from lora_core.specs.method import MethodName
from tests.job_rows import ALICE, BOB, add_job, claim_next, preempt, update_job
from tests.slow import MOSTLY_SQLITE, on_both_databases

Series = dict[tuple[str, ...], float]
LOST = RetryableFailure("worker_lost", "The worker is gone.", 10)


@pytest.fixture(params=MOSTLY_SQLITE)
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def scrape(client: TestClient) -> Callable[[], dict[str, Series]]:
    """Return metric → label values, in the order of their names → number."""

    def read() -> dict[str, Series]:
        response = client.get("/metrics")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain")
        metrics: dict[str, Series] = {}
        for family in text_string_to_metric_families(response.text):
            for sample in family.samples:
                labels = tuple(sample.labels.values())
                metrics.setdefault(sample.name, {})[labels] = sample.value
        return metrics

    return read


Scrape = Callable[[], dict[str, Series]]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.metrics.database.HISTORY_SECONDS", -1.0)


def nonzero(series: Series) -> Series:
    return {labels: number for labels, number in series.items() if number}


def test_empty_service_has_zeros(scrape: Scrape) -> None:
    metrics = scrape()
    assert metrics["loraworks_database_up"] == {(): 1}
    own = {name: series for name, series in metrics.items() if name.startswith("loraworks_")}
    for name, series in own.items():
        measured = ("loraworks_database_up", "loraworks_http_", "loraworks_event_loop_lag_")
        if not name.startswith(measured):
            assert series, name
            assert set(series.values()) == {0}, name
    assert len(metrics["loraworks_jobs"]) == len(JobState) * len(get_args(MethodName))
    assert metrics["loraworks_jobs_queued"].keys() == {("cpu",), ("gpu",), ("any",)}
    assert metrics["process_resident_memory_bytes"][()] > 1e7


def test_paused_jobs_wait_for_no_worker(scrape: Scrape, database: Database) -> None:
    add_job(database, run_after=now() - 100, pause_requested_at=now(), dispatch_count=3)
    metrics = scrape()
    assert nonzero(metrics["loraworks_jobs"]) == {("lora", "queued"): 1}
    for name in ("jobs_queued", "oldest_queued_seconds", "messages_resent"):
        assert nonzero(metrics[f"loraworks_{name}"]) == {}


@on_both_databases
def test_jobs_are_counted_by_state_method_and_device_class(
    scrape: Scrape, database: Database
) -> None:
    for method in ("lora", "lora", "full"):
        add_job(database, method=method)
    add_job(database, device_class=DeviceClass.GPU)
    claim_next(database)
    metrics = scrape()
    assert nonzero(metrics["loraworks_jobs"]) == {
        ("lora", "queued"): 2,
        ("full", "queued"): 1,
        ("lora", "running"): 1,
    }
    assert nonzero(metrics["loraworks_jobs_queued"]) == {("cpu",): 2, ("gpu",): 1}


def test_counts_of_what_has_ended_are_shared_by_scrapes(
    scrape: Scrape, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The queue is always current."""
    monkeypatch.setattr("app.metrics.database.HISTORY_SECONDS", 60.0)
    add_job(database, state=JobState.SUCCEEDED, finished_at=now())
    for queued in (1, 2):
        add_job(database)
        add_job(database, state=JobState.SUCCEEDED, finished_at=now())
        assert nonzero(scrape()["loraworks_jobs"]) == {
            ("lora", "queued"): queued,
            ("lora", "succeeded"): 2,
        }
    monkeypatch.setattr("app.metrics.database.HISTORY_SECONDS", 0.0)
    assert scrape()["loraworks_jobs"]["lora", "succeeded"] == 3


def test_prediction_runs_are_counted_separately_but_share_the_queue(
    scrape: Scrape, database: Database
) -> None:
    run = {"kind": JobKind.PREDICTION, "method": "predict"}
    add_job(database, **run), add_job(database, **run), add_job(database)
    claim_next(database)
    metrics = scrape()
    assert nonzero(metrics["loraworks_predictions"]) == {("queued",): 1, ("running",): 1}
    assert len(metrics["loraworks_predictions"]) == len(JobState)
    assert nonzero(metrics["loraworks_jobs"]) == {("lora", "queued"): 1}
    assert nonzero(metrics["loraworks_jobs_queued"]) == {("cpu",): 2}


@on_both_databases
def test_queue_age_starts_when_a_job_is_due(scrape: Scrape, database: Database) -> None:
    for wait, device_class in (
        (100, DeviceClass.CPU),
        (50, DeviceClass.CPU),
        (-100, DeviceClass.GPU),
    ):
        add_job(database, device_class=device_class, run_after=now() - wait, dispatch_count=2)
    running = add_job(
        database, device_class=DeviceClass.ANY, run_after=now() - 900, priority=9, dispatch_count=7
    )
    assert claim_next(database).lease.job_id == running
    metrics = scrape()
    ages = metrics["loraworks_oldest_queued_seconds"]
    assert ages == {("cpu",): pytest.approx(100, abs=30), ("gpu",): 0, ("any",): 0}
    assert ages["cpu",] >= 100
    assert metrics["loraworks_messages_resent"] == {(): 6}


@on_both_databases
def test_attempts_are_counted_by_outcome_and_code(scrape: Scrape, database: Database) -> None:
    for _ in range(2):
        job_id = add_job(database)
        claimed = claim_next(database)
        with database.write() as session:
            leases.finish_attempt(
                session, claimed.lease, PermanentFailure("one_class", "One label.", {})
            )
    job_id = add_job(database)
    claimed = claim_next(database)
    with database.write() as session:
        leases.finish_attempt(session, claimed.lease, RetryableFailure("crashed", "It crashed.", 0))
    claimed = claim_next(database)
    assert claimed.lease.job_id == job_id
    update_job(database, job_id, lease_expires_at=1.0)
    with database.write() as session:
        assert leases.expire_attempt(session, job_id, attempt=2, failure=LOST, max_failures=9)
    job_id = add_job(database)
    preempt(database, claim_next(database).lease)
    update_job(database, job_id, run_after=now() - 100)
    with database.write() as session:
        assert dispatch.fail_queue_timeouts(session, queue_seconds=50) == [job_id]
    metrics = scrape()
    assert nonzero(metrics["loraworks_attempts"]) == {
        ("one_class", "failed"): 2,
        ("", "failed"): 1,
        ("", "lost"): 1,
        ("", "preempted"): 1,  # the job failed later, in the queue
    }
    assert metrics["loraworks_lease_losses"] == {(): 1}


def test_devices_are_counted_by_type(scrape: Scrape, database: Database) -> None:
    with database.write() as session:
        heartbeats.record_heartbeat(session, ALICE, draining=False, devices=["cuda:0", "cuda:1"])
        heartbeats.record_heartbeat(session, BOB, draining=True, devices=["cpu"])
        session.add(
            Worker(
                id="gone", host="there", boot_id="b", pid=1, pid_start=1, devices=["cuda:7"],
                seen_at=now() - 3600, draining=False,
            )
        )  # fmt: skip
    add_job(database), add_job(database)
    claim_next(database), claim_next(database)
    with database.write() as session:
        session.execute(update(Attempt).values(device="cuda:1"))
    ended = add_job(database)
    claim_next(database)
    update_job(database, ended, state=JobState.CANCELLED, worker=None, finished_at=now())
    metrics = scrape()
    assert metrics["loraworks_worker_concurrency"] == {("cuda",): 2, ("cpu",): 0}  # one drains
    assert metrics["loraworks_running_attempts"] == {("cuda",): 2, ("cpu",): 0}
    assert metrics["loraworks_workers"] == {("active",): 1, ("draining",): 1}


@on_both_databases
def test_stored_bytes_are_summed_by_kind(scrape: Scrape, database: Database) -> None:
    job_id = add_job(database)
    large = 3 * 2**31  # larger than PostgreSQL's integer
    with database.write() as session:
        for number in (1, 2):
            ref = ArtifactRef(f"jobs/{job_id}/a{number}", "0" * 64, large)
            artifacts.add_artifact(session, job_id=job_id, kind="model", ref=ref)
            session.add(
                Checkpoint(
                    job_id=job_id, attempt=1, step=number, seq=number, key="k",
                    manifest_sha256="0" * 64, bytes=10,
                )
            )  # fmt: skip
            session.add(
                Dataset(
                    created_by=LOCAL_KEY_ID, name="mails", version=number, filename="a.csv",
                    suffix=".csv", sha256="0" * 64, bytes=5, rows=1, profile={},
                    text_column="text", label_column="label",
                    deleted_at=1.0 if number == 1 else None,
                )
            )  # fmt: skip
        ref = ArtifactRef(f"predictions/{job_id}/a1", "0" * 64, 7)
        artifacts.add_artifact(session, job_id=job_id, kind="results", ref=ref)
    assert scrape()["loraworks_stored_bytes"] == {
        ("artifacts",): 2 * large,
        ("results",): 7,
        ("vectors",): 0,
        ("checkpoints",): 20,
        ("datasets",): 5,
    }


def test_only_who_may_look_sees_them(
    anonymous_client: TestClient, new_key: Callable[..., service.CreatedKey]
) -> None:
    def ask(*scopes: str) -> int:
        headers = {"Authorization": f"Bearer {new_key(*scopes).text}"}
        return anonymous_client.get("/metrics", headers=headers).status_code

    assert anonymous_client.get("/metrics").status_code == 401
    assert ask("jobs:read") == 403
    assert ask("metrics:read") == 200
