"""Workers that receive malformed messages from the broker."""

import base64
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.database.base import new_id
from app.database.engines import Database
from app.queue.dispatch import TASK_NAME, CeleryNotifier, JobTask
from tests.job_rows import add_job, attempts
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
from tests.worker.test_job_runner import GOOD

__all__ = ["broker", "database_kind", "log", "notifier", "start"]

pytestmark = pytest.mark.e2e


def envelope(body: bytes, **changes: Any) -> str:
    """A message as Celery writes it into its list."""
    message = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"task": TASK_NAME, "id": str(new_id()), "lang": "py"},
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": "loraworks.cpu"},
            "delivery_tag": str(new_id()),
            "body_encoding": "base64",
            "priority": 0,
        },
        **changes,
    }
    return json.dumps(message)


BODY = b"[[], {}, {}]"
UNDECODABLE = [
    "",
    "no JSON",
    "null",
    "[]",
    "{}",
    envelope(BODY, headers=5),
    envelope(BODY, properties={}),
    envelope(BODY, properties={"delivery_tag": []}),
]
OTHER_TASKS = [
    envelope(BODY, headers={"task": "no.such.task", "id": str(new_id())}),
    envelope(BODY, headers={"task": "celery.chord_unlock", "id": str(new_id())}),
    envelope(BODY, headers={"task": ["a", "list"], "id": {}}),
    envelope(BODY, headers={"task": TASK_NAME, "id": "1; DROP TABLE jobs"}),
    envelope(BODY, headers={"task": TASK_NAME, "id": ["a", "list"]}),
    envelope(BODY, headers={"task": TASK_NAME}),
    envelope(BODY, headers={}),
    envelope(b"x" * 50_000_000, headers={}),
]


def with_job(job_id: UUID) -> list[str]:
    """Messages whose task and id are right, and everything else is not."""

    def message(body: bytes, headers: dict[str, Any] | None = None, /, **changes: Any) -> str:
        named = {"task": TASK_NAME, "id": str(job_id), **(headers or {})}
        return envelope(body, headers=named, **changes)

    return [
        message(b"no JSON"),
        message(b""),
        message(b"5"),
        message(b"[" * 100_000),
        message(b"\xff\xfe"),
        message(b"[[1, 2], {}, {}]"),
        message(b'[[], {"more": 1}, {}]'),
        message(b'[[], {}, {"callbacks": 5, "chain": [5], "chord": 5}]'),
        message(b"\x80\x04K\x05.", **{"content-type": "application/x-python-serialize"}),
        message(b"a: 1", **{"content-type": "application/x-yaml"}),
        message(BODY, **{"content-encoding": "no-such-encoding"}),
        message(BODY, {"eta": "9999-01-01T00:00:00"}),
        message(BODY, {"eta": [], "expires": {}}),
        message(BODY, {"expires": "2000-01-01T00:00:00"}),
        message(BODY, {"timelimit": 5}),
        message(BODY, {"timelimit": [1, 1], "retries": "many", "shadow": {}}),
        message(BODY, {"stamped_headers": 5, "stamps": [5], "group": {}}),
    ]


@pytest.mark.slow  # only the service sends messages
def test_malformed_messages_end_no_worker_and_start_no_job_twice(
    database: Database, broker: ValkeyServer, notifier: CeleryNotifier, start: Start, log: Path
) -> None:
    job_id = add_job(database)
    worker = start(*GOOD)
    listen(broker)
    with broker.client() as client:
        for each in (*UNDECODABLE, *OTHER_TASKS, *with_job(job_id), *with_job(new_id())):
            client.lpush("loraworks.cpu", each)
        for channel in ("celery.pidbox", "celeryev/worker.heartbeat", "celeryev/task.multi"):
            for each in (*UNDECODABLE, envelope(b"5"), envelope(BODY), envelope(b"no JSON")):
                client.publish(f"/0.{channel}", each)

    def empty() -> bool:
        with broker.client() as client:
            return not client.exists("loraworks.cpu")

    wait_until(empty, seconds=40, what="the end of the nonsense")
    listen(broker)
    wait_until(lambda: succeeded(database, job_id))
    following = add_job(database)
    notifier.send(JobTask(following, "cpu"))
    wait_until(lambda: succeeded(database, following))
    assert [len(attempts(database, each)) for each in (job_id, following)] == [1, 1]
    assert worker.poll() is None
    lines = log.read_text().splitlines()
    logged = [line for line in lines if "malformed_message" in line]
    assert sum('"message"' in line for line in logged) == len(OTHER_TASKS)
    assert len(logged) > len(OTHER_TASKS)
    assert max(map(len, lines)) < 30_000
    with broker.client() as client:
        assert client.exists("unacked") == 0, "it would come back"
