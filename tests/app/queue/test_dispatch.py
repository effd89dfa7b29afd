"""Tasks reach a broker that is up, and cost no time when it is down."""

import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from app.database.base import new_id
from app.queue import dispatch
from app.queue.dispatch import (
    TASK_NAME,
    BrokerUrlInvalid,
    CeleryNotifier,
    JobTask,
    PollOnlyNotifier,
    message_priority,
    open_worker_notifier,
    validate_broker_url,
)
from app.queue.enums import DeviceClass
from app.settings import Settings
from tests.proxy import Proxy
from tests.servers import ValkeyServer, free_port
from tests.waiting import wait_until

MAX_SEND_SECONDS = 1.0  # a send that waits for the broker takes at least its timeout of 2 s


@pytest.fixture
def broker(valkey: ValkeyServer) -> ValkeyServer:
    """Return the shared broker, flushed."""
    valkey.flush()
    return valkey


@pytest.fixture
def private_broker() -> Iterator[ValkeyServer]:
    """Start a broker that the test may stop."""
    server = ValkeyServer()
    server.start()
    yield server
    server.remove()


def pending_messages(broker: ValkeyServer, device_class: str) -> list[dict[str, Any]]:
    """Return the messages of a queue, in the order of their delivery."""
    name = f"loraworks.{device_class}"
    with broker.client() as client:  # a list for each priority
        lists = [
            client.lrange(key, 0, -1) for key in (name, *(f"{name}\x06\x16{n}" for n in (3, 6, 9)))
        ]
    return [json.loads(message) for each in lists for message in reversed(each)]


def queued_tasks(broker: ValkeyServer, device_class: str) -> list[str]:
    """Return the ids of the tasks for the workers of a device class."""
    messages = pending_messages(broker, device_class)
    assert {each["content-type"] for each in messages} <= {"application/json"}
    assert {each["headers"]["task"] for each in messages} <= {TASK_NAME}
    bodies = [json.loads(base64.b64decode(each["body"])) for each in messages]
    assert [body[:2] for body in bodies] == [[[], {}]] * len(bodies), "they have no arguments"
    return [each["headers"]["id"] for each in messages]


def send(notifier: CeleryNotifier, device_class: str = "cpu") -> UUID:
    job_id = new_id()
    start = time.monotonic()
    notifier.send(JobTask(job_id, device_class))
    assert time.monotonic() - start < MAX_SEND_SECONDS
    return job_id


@pytest.mark.parametrize("device_class", DeviceClass)
def test_a_task_goes_to_the_queue_of_its_device_class(
    broker: ValkeyServer, device_class: str
) -> None:
    notifier = CeleryNotifier(broker.url())
    job_id = send(notifier, device_class)
    notifier.close()
    assert {each: queued_tasks(broker, each) for each in DeviceClass} == {
        each: [str(job_id)] if each == device_class else [] for each in DeviceClass
    }


def test_tasks_are_delivered_in_the_order_of_the_queue(broker: ValkeyServer) -> None:
    """Higher priorities first, then interrupted jobs, then in the order of dispatch."""
    jobs = {
        "low": (-1, 0),
        "first": (0, 0),
        "second": (0, 0),
        "interrupted": (0, 1),
        "high": (5, 0),
    }
    ids = {name: new_id() for name in jobs}
    notifier = CeleryNotifier(broker.url())
    for name, (priority, attempt) in jobs.items():
        notifier.send(JobTask(ids[name], "cpu", message_priority(priority, attempt=attempt)))
    notifier.close()
    order = ["high", "interrupted", "first", "second", "low"]
    assert queued_tasks(broker, "cpu") == [str(ids[name]) for name in order]


def test_a_message_arrives_after_the_broker_lost_its_data(private_broker: ValkeyServer) -> None:
    notifier = CeleryNotifier(private_broker.url())
    send(notifier)
    wait_until(lambda: pending_messages(private_broker, "cpu"))
    private_broker.flush()
    send(notifier)
    wait_until(lambda: pending_messages(private_broker, "cpu"), what="a message after a flush")
    private_broker.restart()
    send(notifier)
    wait_until(lambda: pending_messages(private_broker, "cpu"), what="a message after a restart")
    notifier.close()


def test_sending_does_not_block_without_a_broker() -> None:
    notifier = CeleryNotifier(f"redis://127.0.0.1:{free_port()}/0")
    for _ in range(2000):
        send(notifier)
    start = time.monotonic()
    notifier.close()
    assert time.monotonic() - start < 5


def test_closing_does_not_wait_for_a_task_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(dispatch, "_CLOSE_SECONDS", 0.1)
    monkeypatch.setattr(CeleryNotifier, "_send", lambda *_: ended.wait())
    notifier = CeleryNotifier(f"redis://127.0.0.1:{free_port()}/0")
    send(notifier)
    closing = threading.Thread(target=notifier.close, daemon=True)
    closing.start()
    closing.join(10)
    assert not closing.is_alive()
    ended.set()


@pytest.mark.parametrize("connected", [True, False], ids=["connected", "new"])
def test_sending_does_not_block_on_a_hanging_broker(
    private_broker: ValkeyServer, connected: bool
) -> None:
    with Proxy(private_broker.port) as proxy:
        notifier = CeleryNotifier(private_broker.url(port=proxy.port))
        if connected:
            send(notifier)
            wait_until(lambda: pending_messages(private_broker, "cpu"))
        proxy.blackhole()
        for _ in range(2000):
            send(notifier)
        notifier.close()
        assert "job-tasks" not in {thread.name for thread in threading.enumerate()}, (
            "the sender thread is still running"
        )


def test_a_hanging_broker_may_block_the_sender_for_a_second_each_time(
    broker: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it connects, and while it waits for a response.

    Behind a proxy, since kombu keeps connections to a URL that another test has used.
    """
    timeouts: list[float | None] = []
    set_timeout = socket.socket.settimeout

    def settimeout(own: socket.socket, seconds: float | None) -> None:
        timeouts.append(seconds)
        set_timeout(own, seconds)

    with Proxy(broker.port) as proxy:
        monkeypatch.setattr(socket.socket, "settimeout", settimeout)
        notifier = CeleryNotifier(broker.url(port=proxy.port))
        send(notifier)
        notifier.close()
        monkeypatch.undo()
    assert set(timeouts) - {0} == {1}, "0: is there something to read?"


def test_a_round_of_dispatches_leaves_room_for_the_tasks_of_new_jobs() -> None:
    assert dispatch.MAX_DISPATCHED <= dispatch.MAX_PENDING_TASKS / 2


def test_sending_resumes_when_the_broker_recovers(private_broker: ValkeyServer) -> None:
    notifier = CeleryNotifier(private_broker.url())
    private_broker.freeze()
    lost = send(notifier)
    time.sleep(1.5)  # longer than anybody waits for it
    private_broker.thaw()

    def is_delivered() -> bool:
        sent = str(send(notifier))
        time.sleep(0.05)
        return sent in set(queued_tasks(private_broker, "cpu")) - {str(lost)}

    wait_until(is_delivered, what="a message after the broker was frozen")
    notifier.close()


def test_without_a_broker_url_workers_only_poll() -> None:
    assert isinstance(open_worker_notifier(Settings()), PollOnlyNotifier)


def test_a_valid_broker_url_is_returned_unchanged() -> None:
    url = "redis+socket:///run/valkey.sock?virtual_host=1"
    assert validate_broker_url(url) == url


@pytest.mark.parametrize(
    "url", ["amqp://someone:secret@somewhere", "redis://:secret@somewhere:port/0", "somewhere"]
)
def test_an_invalid_broker_url_is_rejected_without_revealing_the_password(url: str) -> None:
    with pytest.raises(BrokerUrlInvalid, match="LORAWORKS_BROKER_URL") as caught:
        open_worker_notifier(Settings(broker_url=url))
    assert "secret" not in str(caught.value)
