"""Deliveries to real receivers: signatures, retries, replays, and endpoints that are gone."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import openai
import pytest
import standardwebhooks
from openai import OpenAI
from openai.types.webhooks import (
    FineTuningJobCancelledWebhookEvent,
    FineTuningJobFailedWebhookEvent,
    FineTuningJobSucceededWebhookEvent,
)

from app.database.base import now, read_clock
from app.database.engines import Database
from app.openai import ids
from app.openai.tables import OpenAIJobRequest
from app.outbox.enums import DeliveryState
from app.outbox.repository import GIVE_UP_AFTER_SECONDS
from app.queue import leases
from app.queue.transitions import AttemptResult, Cancelled, PermanentFailure, Succeeded
from app.resources import Resources
from app.settings import Settings
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from app.storage.tables import MODEL_KIND
from app.webhooks import http_client, repository, service
from app.webhooks.delivery import deliver_next
from app.webhooks.schemas import WebhookUpdate
from app.webhooks.signing import new_secret, signed_headers
from tests.job_rows import add_job, claim_next, get_state
from tests.servers import free_port
from tests.slow import on_both_databases
from tests.webhook_receiver import Received, Receiver
from tests.webhook_rows import (
    create_webhook,
    deliveries,
    endpoint,
    make_due,
    replay,
    send_test_event,
    update_delivery,
)

Deliver = Callable[[UUID], bool]


@pytest.fixture
def deliver(database: Database, settings: Settings) -> Deliver:
    """Send the next due delivery of a webhook."""
    return lambda webhook_id: deliver_next(database, settings, webhook_id)


def standard(secret: str, request: Received) -> Any:
    return standardwebhooks.Webhook(secret).verify(request.body, request.headers)


def by_openai(secret: str, request: Received) -> Any:
    client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1")
    return client.webhooks.unwrap(request.body, request.headers, secret=secret)


def signed(secret: str, body: bytes, *, age: float = 0) -> Received:
    timestamp = int(time.time() - age)
    headers = signed_headers(body, event_id="evt_1", timestamp=timestamp, secrets=[secret])
    return Received("/", headers, body)


BODY = (
    b'{"id":"evt_1","object":"event","created_at":1,"type":"fine_tuning.job.failed",'
    b'"data":{"id":"ftjob-1"}}'
)
REFUSALS = (standardwebhooks.WebhookVerificationError, openai.InvalidWebhookSignatureError)
VERIFIERS = [standard, by_openai]


@pytest.mark.parametrize("verify", VERIFIERS)
def test_only_genuine_and_recent_requests_pass(verify: Callable[..., Any]) -> None:
    secret = new_secret()
    assert verify(secret, signed(secret, BODY))
    altered = signed(secret, BODY)
    for changed in (
        Received("/", altered.headers, BODY.replace(b"failed", b"passed")),
        Received("/", {**altered.headers, "webhook-id": "evt_2"}, BODY),
        signed(new_secret(), BODY),
        signed(secret, BODY, age=301),
        signed(secret, BODY, age=-302),
    ):
        with pytest.raises(REFUSALS):
            verify(secret, changed)
    assert verify(secret, signed(secret, BODY, age=290))


@on_both_databases
def test_an_event_arrives_signed(
    resources: Resources, receiver: Receiver, deliver: Deliver
) -> None:
    webhook = create_webhook(resources, receiver.url, description="mine")
    assert webhook.secret is not None
    queued = send_test_event(resources.database, webhook.id)
    assert (queued.state, queued.attempts, queued.finished_at) == ("pending", 0, None)
    assert deliver(webhook.id)
    assert not deliver(webhook.id)
    (request,) = receiver.requests
    assert (request.path, request.headers["content-type"]) == ("/events", "application/json")
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["webhook-id"] == queued.event_id
    payload = standard(webhook.secret, request)
    event = by_openai(webhook.secret, request)
    assert (event.id, event.type) == (queued.event_id, "webhook.test")
    assert payload == queued.payload == {
        "id": queued.event_id,
        "object": "event",
        "created_at": pytest.approx(time.time(), abs=60),
        "type": "webhook.test",
        "data": {"id": str(webhook.id), "description": "mine"},
    }  # fmt: skip
    (delivery,) = deliveries(resources.database)
    assert (delivery.state, delivery.attempts, delivery.last_status) == ("delivered", 1, 204)
    assert (delivery.last_error, delivery.next_attempt_at) == (None, None)
    assert delivery.finished_at is not None
    assert delivery.lease_expires_at is None


def test_a_failed_attempt_is_repeated_with_the_same_id_and_a_new_signature(
    resources: Resources,
    receiver: Receiver,
    deliver: Deliver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    webhook = create_webhook(resources, receiver.url)
    send_test_event(resources.database, webhook.id)
    receiver.statuses = [500]
    assert deliver(webhook.id)
    (delivery,) = deliveries(resources.database)
    assert (delivery.state, delivery.attempts, delivery.last_status) == ("pending", 1, 500)
    assert delivery.last_error == "The receiver answered with status 500."
    assert not deliver(webhook.id)  # not due yet
    make_due(resources.database)
    monkeypatch.setattr(repository, "read_clock", lambda session: read_clock(session) + 200)
    assert deliver(webhook.id)
    first, second = receiver.requests
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    times = [int(each.headers["webhook-timestamp"]) for each in (first, second)]
    assert times[1] - times[0] >= 200
    assert webhook.secret is not None
    assert standard(webhook.secret, second) == standard(webhook.secret, first)
    (delivery,) = deliveries(resources.database)
    assert (delivery.state, delivery.attempts, delivery.last_error) == ("delivered", 2, None)


@pytest.mark.parametrize("kind", ["refused", "timeout", "redirect", "private"])
def test_other_failures_are_retried_as_well(
    kind: str,
    resources: Resources,
    settings: Settings,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"http://127.0.0.1:{free_port()}/" if kind == "refused" else receiver.url
    webhook = create_webhook(resources, url)
    send_test_event(resources.database, webhook.id)
    if kind == "timeout":
        monkeypatch.setattr(http_client, "SEND_SECONDS", 0.2)
        receiver.respond.clear()
    if kind == "redirect":
        receiver.statuses, receiver.response_headers = [302], {"Location": receiver.url}
    if kind == "private":  # the setting was changed in the meantime
        settings = settings.model_copy(update={"webhook_allowed_hosts": ()})
    assert deliver_next(resources.database, settings, webhook.id)
    (delivery,) = deliveries(resources.database)
    assert delivery.state == "pending"
    assert delivery.last_status == (302 if kind == "redirect" else None)
    messages = {
        "refused": "did not respond",
        "timeout": "timed out after 0.2 s",
        "redirect": "status 302",
        "private": "LORAWORKS_WEBHOOK_ALLOWED_HOSTS",
    }
    assert messages[kind] in (delivery.last_error or "")
    assert len(receiver.requests) == (kind in ("timeout", "redirect"))


def test_retries_wait_longer_each_time_and_end_after_a_day(
    resources: Resources, receiver: Receiver, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = create_webhook(resources, receiver.url)
    send_test_event(resources.database, webhook.id)
    monkeypatch.setattr("app.webhooks.service.random.uniform", lambda _, high: high)
    receiver.statuses = [503] * 100
    delays: list[float] = []
    while True:
        with resources.database.read() as session:
            before = read_clock(session)
        assert deliver(webhook.id)
        (delivery,) = deliveries(resources.database)
        if delivery.next_attempt_at is None:
            break
        delay = delivery.next_attempt_at - before
        delays.append(delay)
        # As if that time had passed.
        update_delivery(
            resources.database,
            next_attempt_at=before - 1,
            retry_until=delivery.retry_until - delay,
        )
    assert delays[:4] == pytest.approx([6.25, 12.5, 25, 50], abs=3)
    assert max(delays) == pytest.approx(13_500, abs=3)
    assert 0.8 * GIVE_UP_AFTER_SECONDS < sum(delays) < GIVE_UP_AFTER_SECONDS
    assert (delivery.state, delivery.attempts) == ("failed", len(delays) + 1)
    assert delivery.finished_at is not None
    make_due(resources.database)
    assert not deliver(webhook.id)


def test_an_attempt_that_fails_ends_what_is_overdue(
    resources: Resources, receiver: Receiver, deliver: Deliver
) -> None:
    """A receiver that is down for good does not have more deliveries to retry every day."""
    webhook, other = (create_webhook(resources, receiver.url) for _ in range(2))
    for _ in range(3):
        send_test_event(resources.database, webhook.id)
    send_test_event(resources.database, other.id)
    update_delivery(resources.database, retry_until=now() - 1)
    send_test_event(resources.database, webhook.id)
    receiver.statuses = [200, 500]
    for _ in range(2):  # after an outage of the workers, the first attempt succeeds
        assert deliver(webhook.id)
    delivered, failed, overdue, of_other, young = deliveries(resources.database)
    assert [each.state for each in (delivered, failed, overdue)] == [
        *("delivered", "failed", "failed")
    ]
    assert (overdue.attempts, overdue.last_error) == (0, failed.last_error)
    assert overdue.finished_at is not None
    assert (of_other.state, young.state) == ("pending", "pending")


def test_a_replay_sends_the_same_event_again(
    resources: Resources, receiver: Receiver, deliver: Deliver
) -> None:
    webhook = create_webhook(resources, receiver.url)
    send_test_event(resources.database, webhook.id)
    assert deliver(webhook.id)
    (delivered,) = deliveries(resources.database)
    update_delivery(resources.database, retry_until=0, failures=18)
    replay(resources.database, delivered)
    receiver.statuses = [500]
    assert deliver(webhook.id)
    (again,) = deliveries(resources.database)
    assert (again.state, again.attempts, again.failures) == ("pending", 2, 1)
    replay(resources.database, again)  # without waiting for the next attempt
    assert deliver(webhook.id)
    (again,) = deliveries(resources.database)
    assert (again.state, again.attempts, again.failures) == ("delivered", 3, 0)
    assert len({each.headers["webhook-id"] for each in receiver.requests}) == 1
    assert len(receiver.requests) == 3


@on_both_databases
def test_no_other_worker_sends_what_is_being_sent(
    resources: Resources, receiver: Receiver, deliver: Deliver
) -> None:
    webhook = create_webhook(resources, receiver.url)
    send_test_event(resources.database, webhook.id)
    receiver.respond.clear()
    sending = threading.Thread(target=deliver, args=(webhook.id,))
    sending.start()
    receiver.wait(1)
    assert not deliver(webhook.id)
    (delivery,) = deliveries(resources.database)
    replay(resources.database, delivery)
    assert not deliver(webhook.id)
    receiver.respond.set()
    sending.join()
    assert len(receiver.requests) == 1
    assert deliveries(resources.database)[0].state == "delivered"


@on_both_databases
def test_workers_that_claim_at_the_same_time_share_the_deliveries(resources: Resources) -> None:
    database = resources.database
    webhook = create_webhook(resources, "https://example.com/")
    for _ in range(20):
        send_test_event(database, webhook.id)
    claims: list[UUID] = []

    def claim_all() -> None:
        while True:
            with database.write() as session:
                claimed = repository.claim_due_delivery(session, webhook.id)
            if claimed is None:
                return
            claims.append(claimed.id)

    workers = [threading.Thread(target=claim_all) for _ in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    assert sorted(claims) == [each.id for each in deliveries(database)]


@on_both_databases
def test_a_result_after_the_lease_ran_out_changes_nothing(
    resources: Resources, receiver: Receiver, deliver: Deliver
) -> None:
    webhook = create_webhook(resources, receiver.url)
    send_test_event(resources.database, webhook.id)
    with resources.database.write() as session:
        late = repository.claim_due_delivery(session, webhook.id)
    assert late is not None
    assert not deliver(webhook.id)
    make_due(resources.database)
    receiver.statuses = [500]
    assert deliver(webhook.id)
    with resources.database.write() as session:
        repository.record_success(session, late, status=200)
    (delivery,) = deliveries(resources.database)
    assert (delivery.state, delivery.attempts, delivery.last_status) == ("pending", 2, 500)


def test_gone_receivers_are_disabled(
    resources: Resources, receiver: Receiver, deliver: Deliver
) -> None:
    webhook = create_webhook(resources, receiver.url)
    for _ in range(2):
        send_test_event(resources.database, webhook.id)
    receiver.statuses = [410]
    assert deliver(webhook.id)
    assert not deliver(webhook.id)
    assert [each.state for each in deliveries(resources.database)] == ["failed", "failed"]
    gone = endpoint(resources.database, webhook.id)
    assert (gone.enabled, gone.disabled_reason) == (False, service.GONE_REASON)
    sent, unsent = deliveries(resources.database)
    assert (sent.attempts, unsent.attempts) == (1, 0)
    assert (sent.last_status, unsent.last_status) == (410, None)
    assert unsent.last_error == service.GONE_REASON


def test_a_gone_receiver_at_the_old_url_leaves_the_new_one_enabled(
    resources: Resources, settings: Settings, receiver: Receiver, deliver: Deliver
) -> None:
    webhook = create_webhook(resources, receiver.url)
    send_test_event(resources.database, webhook.id)
    receiver.respond.clear()
    receiver.statuses = [410]
    sending = threading.Thread(target=deliver, args=(webhook.id,))
    sending.start()
    receiver.wait(1)
    body = WebhookUpdate(url=f"{receiver.url}/new")
    with resources.database.write() as session:
        service.update_webhook(session, webhook_id=webhook.id, body=body, settings=settings)
    receiver.respond.set()
    sending.join()
    assert endpoint(resources.database, webhook.id).enabled
    make_due(resources.database)
    assert deliver(webhook.id)
    assert [each.path for each in receiver.requests] == ["/events", "/events/new"]
    (delivery,) = deliveries(resources.database)
    assert delivery.state == "delivered"


@pytest.mark.parametrize(("status", "state"), [(204, "delivered"), (500, "failed")])
def test_an_endpoint_that_is_disabled_while_it_is_sent_to(
    status: int,
    state: str,
    resources: Resources,
    settings: Settings,
    receiver: Receiver,
    deliver: Deliver,
) -> None:
    webhook = create_webhook(resources, receiver.url)
    send_test_event(resources.database, webhook.id)
    receiver.respond.clear()
    receiver.statuses = [status]
    sending = threading.Thread(target=deliver, args=(webhook.id,))
    sending.start()
    receiver.wait(1)
    body = WebhookUpdate(enabled=False)
    with resources.database.write() as session:
        service.update_webhook(session, webhook_id=webhook.id, body=body, settings=settings)
    receiver.respond.set()
    sending.join()
    (delivery,) = deliveries(resources.database)
    assert delivery.state == state
    assert delivery.next_attempt_at is None


def test_an_endpoint_that_is_deleted_while_it_is_sent_to(
    resources: Resources, receiver: Receiver, deliver: Deliver
) -> None:
    webhook = create_webhook(resources, receiver.url)
    send_test_event(resources.database, webhook.id)
    receiver.respond.clear()
    receiver.statuses = [410]
    results: list[bool] = []
    sending = threading.Thread(target=lambda: results.append(deliver(webhook.id)))
    sending.start()
    receiver.wait(1)
    with resources.database.write() as session:
        service.delete_webhook(session, webhook_id=webhook.id)
    receiver.respond.set()
    sending.join()
    assert results == [True]
    assert deliveries(resources.database) == []


def test_requests_have_both_signatures_while_a_secret_rotates(
    resources: Resources, receiver: Receiver, deliver: Deliver, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook = create_webhook(resources, receiver.url)
    with resources.database.write() as session:
        rotated = service.rotate_secret(session, webhook_id=webhook.id)
    assert webhook.secret is not None
    assert rotated.secret is not None
    send_test_event(resources.database, webhook.id)
    assert deliver(webhook.id)
    (request,) = receiver.requests
    for secret in (webhook.secret, rotated.secret):
        assert standard(secret, request)
        assert by_openai(secret, request)
    monkeypatch.setattr(repository, "read_clock", lambda session: read_clock(session) + 90_000)
    send_test_event(resources.database, webhook.id)
    assert deliver(webhook.id)
    assert len(receiver.requests[1].headers["webhook-signature"].split()) == 1


def test_the_body_is_the_same_in_every_attempt(
    resources: Resources, receiver: Receiver, deliver: Deliver
) -> None:
    text = 'café "quoted" \U0001f600'
    webhook = create_webhook(resources, receiver.url, description=text)
    send_test_event(resources.database, webhook.id)
    receiver.statuses = [500]
    deliver(webhook.id)
    make_due(resources.database)
    deliver(webhook.id)
    first, second = receiver.requests
    assert first.body == second.body
    assert json.loads(first.body)["data"]["description"] == text
    assert deliveries(resources.database)[0].state == DeliveryState.DELIVERED


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (None, FineTuningJobSucceededWebhookEvent),
        (PermanentFailure("one_class", "Only one label."), FineTuningJobFailedWebhookEvent),
        (Cancelled(), FineTuningJobCancelledWebhookEvent),
    ],
)
def test_jobs_of_the_openai_api_end_with_an_event_of_that_api(
    result: AttemptResult | None,
    kind: type,
    resources: Resources,
    receiver: Receiver,
    deliver: Deliver,
) -> None:
    database = resources.database
    webhook = create_webhook(resources, receiver.url)
    job_id = add_job(database)
    with database.write() as session:
        session.add(OpenAIJobRequest(job_id=job_id, request={}))
    lease = claim_next(database).lease
    with database.write() as session:
        ref = ArtifactRef(f"jobs/{job_id}/a1", "0" * 64, bytes=1)
        artifact = artifacts.add_artifact(session, job_id=job_id, kind=MODEL_KIND, ref=ref)
        leases.finish_attempt(session, lease, result or Succeeded(artifact.id, {}))
    while deliver(webhook.id):
        pass
    assert webhook.secret is not None
    events = [by_openai(webhook.secret, each) for each in receiver.requests]
    (event,) = (each for each in events if isinstance(each, kind))
    assert event.data.id == ids.job_id(job_id)  # type: ignore[attr-defined]
    state = get_state(database, job_id)
    assert {each.type for each in events} == {f"job.{state}", f"fine_tuning.job.{state}"}
