"""Which changes become events, in the transaction of the change, for which endpoints."""

import json
import threading
from typing import Any
from uuid import UUID

import pytest

from app.database.base import new_id, now
from app.database.engines import Database
from app.jobs import repository as jobs
from app.outbox import repository as outbox
from app.outbox.enums import EventType
from app.queue import dispatch, leases
from app.queue.enums import JobKind
from app.queue.fencing import LeaseLost
from app.queue.transitions import (
    AttemptResult,
    Cancelled,
    PermanentFailure,
    Preempted,
    RetryableFailure,
    Succeeded,
)
from app.registry import repository as registry_repository
from app.registry import service as registry
from app.registry.refs import ModelRef
from app.resources import Resources
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from app.storage.tables import MODEL_KIND, Artifact
from app.webhooks import repository, service
from app.webhooks.schemas import WebhookUpdate
from tests import sweep_rows
from tests.app.sweeps.conftest import JOB
from tests.app.sweeps.fake_worker import FakeSweepWorker
from tests.job_rows import MANIFEST, add_job, claim_next
from tests.slow import on_both_databases
from tests.waiting import wait_for_a_waiter
from tests.webhook_rows import create_webhook, deliveries

URL = "https://example.com/events"


def published(database: Database) -> list[tuple[str, dict[str, Any]]]:
    """Return the types and data of all events, checking the rest of their bodies."""
    found = []
    for row in deliveries(database):
        body = json.loads(row.body)
        assert body["id"] == row.event_id
        assert (body["object"], body["type"]) == ("event", row.type)
        assert isinstance(body["created_at"], int)
        found.append((row.type, body["data"]))
    return found


def add_artifact(database: Database) -> Artifact:
    job_id = new_id()
    ref = ArtifactRef(f"jobs/{job_id}/a1", "0" * 64, bytes=1)
    with database.write() as session:
        return artifacts.add_artifact(session, job_id=job_id, kind=MODEL_KIND, ref=ref)


def add_version(database: Database) -> None:
    artifact = add_artifact(database)
    with database.write() as session:
        registry.add_version(session, name="sentiment", artifact=artifact, manifest=MANIFEST)


@pytest.fixture(autouse=True)
def webhook(resources: Resources) -> None:
    """An endpoint for all events."""
    create_webhook(resources, URL)


@pytest.mark.parametrize(
    ("result", "state", "error_code"),
    [
        (None, "succeeded", None),
        (PermanentFailure("one_class", "Only one label."), "failed", "one_class"),
        (Cancelled(), "cancelled", None),
    ],
)
def test_jobs_that_end(
    result: AttemptResult | None, state: str, error_code: str | None, database: Database
) -> None:
    sweep_id = new_id()
    job_id = add_job(database, name="mine", sweep_id=sweep_id)
    lease = claim_next(database).lease
    summary = {"model_version": "sentiment:3", "test": {}}
    ending = result or Succeeded(add_artifact(database).id, summary)
    with database.write() as session:
        leases.finish_attempt(session, lease, ending)
    data = {
        "id": str(job_id),
        "name": "mine",
        "state": state,
        "model_version": "sentiment:3" if state == "succeeded" else None,
        "error_code": error_code,
        "sweep_id": str(sweep_id),
    }
    assert published(database) == [(f"job.{state}", data)]


def test_jobs_that_go_on_are_no_event(database: Database) -> None:
    add_job(database)
    for result in (Preempted(), RetryableFailure("lost", "Lost.", 0)):
        with database.write() as session:
            leases.finish_attempt(session, claim_next(database).lease, result)
    assert published(database) == []


@on_both_databases
def test_a_rolled_back_end_is_no_event(database: Database) -> None:
    add_job(database)
    lease = claim_next(database).lease
    with database.write() as session:
        leases.finish_attempt(session, lease, Cancelled())
        session.rollback()
    assert published(database) == []


@on_both_databases
def test_a_lost_lease_is_no_event(database: Database) -> None:
    add_job(database)
    lease = claim_next(database).lease
    for _ in range(2):
        with database.write() as session:
            jobs.request_cancel(session, lease.job_id)
    with database.write() as session:
        leases.finish_attempt(session, lease, Cancelled())
    with pytest.raises(LeaseLost), database.write() as session:
        leases.finish_attempt(session, lease, Cancelled())
    assert [each for each, _ in published(database)] == ["job.cancelled"]


def test_jobs_cancelled_before_they_ran(database: Database) -> None:
    job_id = add_job(database)
    for _ in range(2):
        with database.write() as session:
            jobs.request_cancel(session, job_id)
    assert [(kind, data["id"]) for kind, data in published(database)] == [
        ("job.cancelled", str(job_id))
    ]


def test_jobs_that_waited_too_long(database: Database) -> None:
    job_id = add_job(database, run_after=now() - 100)
    with database.write() as session:
        assert dispatch.fail_queue_timeouts(session, queue_seconds=50) == [job_id]
    ((kind, data),) = published(database)
    assert (kind, data["error_code"]) == ("job.failed", "queue_timeout")


def test_jobs_whose_workers_are_lost_too_often(database: Database) -> None:
    add_job(database)
    failure = RetryableFailure("lost_worker", "Lost.", 0)
    for _ in range(2):
        lease = claim_next(database).lease
        with database.write() as session:
            assert leases.expire_attempt(
                session,
                lease.job_id,
                attempt=lease.attempt,
                failure=failure,
                max_failures=2,
                dead_worker=lease.worker,
            )
    ((kind, data),) = published(database)
    assert (kind, data["error_code"]) == ("job.failed", "lost_worker")


def test_prediction_runs_are_no_event(database: Database) -> None:
    add_job(database, kind=JobKind.PREDICTION)
    with database.write() as session:
        leases.finish_attempt(session, claim_next(database).lease, Cancelled())
    assert published(database) == []


def test_versions_that_are_new_in_production(database: Database) -> None:
    for _ in range(2):
        add_version(database)

    def move(number: int, alias: str = "production", **more: bool) -> None:
        with database.write() as session:
            registry.move_alias(session, name="sentiment", alias=alias, number=number, **more)

    move(1, "staging")
    assert published(database) == []
    move(1)
    move(1)  # it is there already
    move(2)
    move(1, rollback=True)
    events = published(database)
    assert {kind for kind, _ in events} == {"model.promoted"}
    assert [data["id"] for _, data in events] == ["sentiment:1", "sentiment:2", "sentiment:1"]
    assert events[1][1].keys() == {"id", "name", "version", "job_id"}
    assert (events[1][1]["name"], events[1][1]["version"]) == ("sentiment", 2)


@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_a_version_that_two_promote_at_the_same_time(database: Database) -> None:
    for _ in range(2):
        add_version(database)
    with database.write() as session:
        registry.move_alias(session, name="sentiment", alias="production", number=1)

    def promote(number: int) -> None:
        with database.write() as session:
            registry.move_alias(session, name="sentiment", alias="production", number=number)

    second = threading.Thread(target=promote, args=(2,))
    with database.write() as session:
        version = registry_repository.get_version(session, ModelRef("sentiment", number=2))
        registry.point_alias_and_publish(session, version, alias="production")
        second.start()
        wait_for_a_waiter(database)
    second.join()
    assert [data["id"] for _, data in published(database)] == ["sentiment:1", "sentiment:2"]


def test_versions_that_a_job_promotes(database: Database) -> None:
    artifact = add_artifact(database)
    with database.write() as session:
        version = registry.add_version(session, name="new", artifact=artifact, manifest=MANIFEST)
        registry.point_alias_and_publish(session, version, alias="production")
    ((kind, data),) = published(database)
    assert (kind, data["id"], data["job_id"]) == ("model.promoted", "new:1", str(artifact.job_id))


def test_sweeps_that_finish(resources: Resources) -> None:
    space = {"method.alpha": [8, 16]}
    sweep_id = sweep_rows.start(resources, job=JOB, space=space, name="alphas")
    assert published(resources.database) == []
    assert FakeSweepWorker(resources).run_jobs() == 2
    events = published(resources.database)
    assert [kind for kind, _ in events] == ["job.succeeded", "job.succeeded", "sweep.finished"]
    assert events[-1][1] == {"id": str(sweep_id), "name": "alphas", "state": "finished"}


@on_both_databases
def test_each_endpoint_gets_the_events_that_it_wants(resources: Resources) -> None:
    database = resources.database
    wanted = create_webhook(resources, URL, events=["job.failed", "job.cancelled"])
    create_webhook(resources, URL, events=["job.succeeded"])
    disabled = create_webhook(resources, URL)
    with database.write() as session:
        service.update_webhook(
            session,
            webhook_id=disabled.id,
            body=WebhookUpdate(enabled=False),
            settings=resources.settings,
        )
    add_job(database)
    with database.write() as session:
        leases.finish_attempt(session, claim_next(database).lease, Cancelled())
    all_events, some = deliveries(database)
    assert {all_events.endpoint_id, some.endpoint_id} >= {wanted.id}
    assert disabled.id not in (all_events.endpoint_id, some.endpoint_id)
    assert all_events.event_id == some.event_id
    assert all_events.body == some.body


def test_without_endpoints_there_are_no_rows(database: Database) -> None:
    (webhook_id,) = list_ids(database)
    with database.write() as session:
        service.delete_webhook(session, webhook_id=webhook_id)
    add_job(database)
    lease = claim_next(database).lease
    with database.write() as session:
        assert not outbox.has_enabled_endpoints(session)
        leases.finish_attempt(session, lease, Cancelled())
    assert deliveries(database) == []


@pytest.mark.parametrize("database_kind", ["postgresql"])
@pytest.mark.parametrize("change", ["delete", "disable"])
def test_an_endpoint_that_changes_at_the_same_time(change: str, resources: Resources) -> None:
    """The event comes first, and the change waits for it: neither transaction fails."""
    database = resources.database
    (webhook_id,) = list_ids(database)

    def end_endpoint() -> None:
        with database.write() as session:
            if change == "delete":
                service.delete_webhook(session, webhook_id=webhook_id)
            else:
                service.update_webhook(
                    session,
                    webhook_id=webhook_id,
                    body=WebhookUpdate(enabled=False),
                    settings=resources.settings,
                )

    changing = threading.Thread(target=end_endpoint)
    with database.write() as session:
        outbox.publish_event(session, EventType.JOB_FAILED, {"id": "1"})
        changing.start()
        wait_for_a_waiter(database)
    changing.join()
    states = [each.state for each in deliveries(database)]
    assert states == ([] if change == "delete" else ["failed"])


def list_ids(database: Database) -> list[UUID]:
    with database.read() as session:
        return [each.id for each in repository.list_endpoints(session, after=None, limit=9)]
