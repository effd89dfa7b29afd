"""Workers that receive malformed messages from the broker."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from app.database.base import new_id
from app.database.engines import Database
from app.queue.dispatch import CeleryNotifier
from tests.job_rows import add_job
from tests.servers import ValkeyServer
from tests.waiting import wait_until
from tests.worker.test_celery import (
    Start,
    broker,
    database_kind,
    listen,
    log,
    notifier,
    start,
    succeeded,
)
from tests.worker.test_run_job import GOOD

__all__ = ["broker", "database_kind", "log", "notifier", "start"]

pytestmark = pytest.mark.e2e


def envelope(body: bytes, **changes: Any) -> str:
    """A message as Celery writes it into its list."""
    message = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": "loraworks.job_queued", "id": str(new_id()), "lang": "py"},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": "loraworks.cpu"},
            "delivery_tag": str(new_id()),
            "body_encoding": "base64",
            "priority": 0,
        },
        **changes,
    }
    return json.dumps(message)


HINT = json.dumps([[{"v": 1, "job_id": str(new_id())}], {}, {}]).encode()
NO_MESSAGES = [
    "",
    "no JSON",
    "null",
    "[]",
    "{}",
    envelope(HINT, headers=5),
    envelope(HINT, properties={}),
    envelope(HINT, properties={"delivery_tag": []}),
]
NO_HINTS = [
    envelope(b"no JSON"),
    envelope(b""),
    envelope(b"[]"),
    envelope(b"5"),
    envelope(b"[" * 100_000),
    envelope(b"\xff\xfe"),
    envelope(b"[[], {}, {}]"),
    envelope(b'[[{"v": 2, "job_id": "00000000-0000-0000-0000-000000000000"}], {}, {}]'),
    envelope(b'[[{"v": 1, "job_id": "1; DROP TABLE jobs"}], {}, {}]'),
    envelope(HINT.replace(b"{}", b'{"more": 1}', 1)),
    envelope(HINT.replace(b'"v"', b'"more": 1, "v"')),
    envelope(HINT, headers={"task": "no.such.task", "id": "1"}),
    envelope(HINT, headers={"task": "celery.chord_unlock", "id": "1"}),
    envelope(HINT, headers={"task": ["a", "list"], "id": {}}),
    envelope(HINT, headers={}),
    envelope(b"\x80\x04K\x05.", **{"content-type": "application/x-python-serialize"}),
    envelope(b"a: 1", **{"content-type": "application/x-yaml"}),
]


def test_malformed_messages_are_logged_and_dropped(
    database: Database, broker: ValkeyServer, notifier: CeleryNotifier, start: Start, log: Path
) -> None:
    worker = start(*GOOD)
    listen(broker)
    for each in (*NO_MESSAGES, *NO_HINTS):
        with broker.client() as client:
            client.lpush("loraworks.cpu", each)

    def empty() -> bool:
        with broker.client() as client:
            return not client.exists("loraworks.cpu")

    wait_until(empty, seconds=40, what="the end of the nonsense")
    listen(broker)
    job_id = add_job(database)
    notifier.notify(job_id, device_class="cpu")
    wait_until(lambda: succeeded(database, job_id))
    assert worker.poll() is None
    lines = log.read_text().splitlines()
    logged = [line for line in lines if "malformed_message" in line]
    assert sum('"message"' in line for line in logged) == len(NO_HINTS)
    assert len(logged) > len(NO_HINTS)
    assert max(map(len, lines)) < 30_000
    with broker.client() as client:
        assert client.exists("unacked") == 0, "it would come back"
