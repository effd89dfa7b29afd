"""Workers deliver webhooks beside their jobs."""

from collections.abc import Iterator

import pytest

from app.database.engines import Database
from app.queue.enums import JobState
from app.resources import Resources, open_resources
from app.settings import Settings
from tests.e2e.installation import Installation
from tests.job_rows import add_job, get_state
from tests.waiting import wait_until
from tests.webhook_receiver import ALLOWED, Receiver, receiving
from tests.webhook_rows import create_webhook, deliveries, make_due, send_test_event
from tests.worker.scripted import scripted
from tests.worker.test_job_runner import GOOD
from worker import webhooks
from worker.service import WorkerService, open_service


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def service(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerService]:
    """A worker that runs."""
    monkeypatch.setattr(webhooks, "POLL_SECONDS", 0.05)
    scripted(*GOOD)
    changes = {"webhook_allowed_hosts": ALLOWED, "fork_server": False}
    opened = open_service(settings.model_copy(update=changes))
    opened.start()
    yield opened
    opened.requeue_jobs_and_wait()
    opened.close()


def wait_for_states(database: Database, *states: str) -> None:
    wait_until(
        lambda: sorted(each.state for each in deliveries(database)) == sorted(states),
        what=f"deliveries {states}",
    )


@pytest.mark.usefixtures("service")
def test_the_end_of_a_job_is_delivered(resources: Resources, receiver: Receiver) -> None:
    create_webhook(resources, receiver.url)
    job_id = add_job(resources.database)
    (request,) = receiver.wait(1)
    assert str(job_id).encode() in request.body
    assert get_state(resources.database, job_id) is JobState.SUCCEEDED
    wait_for_states(resources.database, "delivered")


@pytest.mark.usefixtures("service")
def test_a_slow_receiver_delays_nothing_else(resources: Resources, receiver: Receiver) -> None:
    database = resources.database
    with receiving() as slow:
        slow.respond.clear()
        webhook = create_webhook(resources, slow.url)
        for _ in range(3):
            send_test_event(database, webhook.id)
        slow.wait(1)
        quick = create_webhook(resources, receiver.url)
        for _ in range(3):
            send_test_event(database, quick.id)
        receiver.wait(3)
        job_id = add_job(database)
        wait_until(lambda: get_state(database, job_id) is JobState.SUCCEEDED)
        receiver.wait(4)
        assert len(slow.requests) == 1  # one at a time
        slow.respond.set()
        slow.wait(4)
    wait_for_states(database, *["delivered"] * 8)


def test_what_waited_for_a_worker_is_delivered(
    resources: Resources, receiver: Receiver, request: pytest.FixtureRequest
) -> None:
    webhook = create_webhook(resources, receiver.url)
    send_test_event(resources.database, webhook.id)
    request.getfixturevalue("service")
    receiver.wait(1)
    wait_for_states(resources.database, "delivered")


@pytest.mark.slow  # the small form is in tests/app/webhooks
@pytest.mark.e2e
def test_a_worker_that_dies_while_it_sends(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("killed")
    installation = Installation(folder, changes={"webhook_allowed_hosts": "127.0.0.1"})
    database = installation.database
    try:
        with receiving() as receiver:
            resources = open_resources(installation.settings)
            webhook = create_webhook(resources, receiver.url)
            send_test_event(database, webhook.id)
            receiver.respond.clear()
            first = installation.worker("nothing")
            receiver.wait(1, seconds=60)
            first.kill()
            (delivery,) = deliveries(database)
            assert (delivery.state, delivery.attempts) == ("pending", 1)
            assert delivery.lease_expires_at is not None
            receiver.respond.set()
            make_due(database)  # as if the lease had run out
            installation.worker("nothing")
            requests = receiver.wait(2, seconds=60)
            wait_for_states(database, "delivered")
            assert len({each.headers["webhook-id"] for each in requests}) == 1
            assert len(receiver.requests) == 2
            resources.close()
    finally:
        installation.close()
