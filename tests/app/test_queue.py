"""Hints reach the broker when it is there, and cost nothing when it is not."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from app.database.base import new_id
from app.queue.dispatch import LANES, BrokerUrlInvalid, CeleryQueue, PollOnlyQueue, open_queue
from app.settings import Settings
from tests.proxy import Proxy
from tests.servers import ValkeyServer, free_port
from tests.waiting import wait_until

AT_ONCE = 0.05  # seconds


@pytest.fixture
def broker(valkey: ValkeyServer) -> ValkeyServer:
    """The one of all tests, empty."""
    valkey.flush()
    return valkey


@pytest.fixture
def own() -> Iterator[ValkeyServer]:
    """One that the test may stop."""
    server = ValkeyServer()
    server.start()
    yield server
    server.remove()


def waiting(broker: ValkeyServer, lane: str) -> list[dict[str, Any]]:
    with broker.client() as client:
        found = client.lrange(f"loraworks.{lane}", 0, -1)
    assert isinstance(found, list)
    return [json.loads(each) for each in found]


def told(broker: ValkeyServer, lane: str) -> list[Any]:
    """The jobs that the workers of a lane hear of."""
    messages = waiting(broker, lane)
    assert {each["content-type"] for each in messages} <= {"application/json"}
    bodies = [json.loads(base64.b64decode(each["body"])) for each in messages]
    return [arguments[0] for arguments, _, _ in bodies]


def hint(queue: CeleryQueue, lane: str = "cpu") -> UUID:
    job_id = new_id()
    began = time.monotonic()
    queue.hint(job_id, lane=lane)
    assert time.monotonic() - began < AT_ONCE
    return job_id


@pytest.mark.parametrize("lane", LANES)
def test_the_workers_that_can_take_the_job_are_told(broker: ValkeyServer, lane: str) -> None:
    queue = CeleryQueue(broker.url())
    job_id = hint(queue, lane)
    queue.close()
    expected = [{"v": 1, "job_id": str(job_id)}]
    assert {each: told(broker, each) for each in LANES} == {
        each: expected if each == lane else [] for each in LANES
    }


def test_a_hint_arrives_in_a_broker_that_has_forgotten_everything(own: ValkeyServer) -> None:
    queue = CeleryQueue(own.url())
    hint(queue)
    wait_until(lambda: waiting(own, "cpu"))
    own.flush()
    hint(queue)
    wait_until(lambda: waiting(own, "cpu"), what="a hint after a flush")
    own.restart()
    hint(queue)
    wait_until(lambda: waiting(own, "cpu"), what="a hint after a restart")
    queue.close()


def test_without_a_broker_nobody_waits() -> None:
    queue = CeleryQueue(f"redis://127.0.0.1:{free_port()}/0")
    for _ in range(2000):
        hint(queue)
    began = time.monotonic()
    queue.close()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("known", [True, False], ids=["connected", "new"])
def test_for_a_broker_that_hangs_nobody_waits(own: ValkeyServer, known: bool) -> None:
    with Proxy(own.port) as proxy:
        queue = CeleryQueue(own.url(port=proxy.port))
        if known:
            hint(queue)
            wait_until(lambda: waiting(own, "cpu"))
        proxy.blackhole()
        for _ in range(2000):
            hint(queue)
        queue.close()
        assert "hints" not in {thread.name for thread in threading.enumerate()}, "it still waits"


def test_hints_go_on_when_the_broker_comes_back(own: ValkeyServer) -> None:
    queue = CeleryQueue(own.url())
    own.freeze()
    lost = hint(queue)
    time.sleep(1.5)  # longer than anybody waits for it
    own.thaw()

    def again() -> bool:
        sent = str(hint(queue))
        time.sleep(0.05)
        return sent in {each["job_id"] for each in told(own, "cpu")} - {str(lost)}

    wait_until(again, what="a hint after the broker was frozen")
    queue.close()


def test_without_the_setting_there_is_no_broker() -> None:
    assert isinstance(open_queue(Settings()), PollOnlyQueue)


@pytest.mark.parametrize(
    "url", ["amqp://someone:secret@somewhere", "redis://:secret@somewhere:port/0", "somewhere"]
)
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(BrokerUrlInvalid, match="LORAWORKS_BROKER_URL") as caught:
        open_queue(Settings(broker_url=url))
    assert "secret" not in str(caught.value)
