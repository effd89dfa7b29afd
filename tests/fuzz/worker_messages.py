"""Readers of what reaches a worker: messages of the broker, events of a training process."""

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from celery.worker import state
from kombu import Connection
from kombu.transport.virtual import Channel, Message
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from sqlalchemy import Integer, String, Table

from app.queue.dispatch import TASK_NAME
from app.queue.enums import JobKind
from app.queue.events import EventContent
from app.queue.fencing import ClaimedJob, Lease
from app.queue.tables import Job, JobEvent, MetricPoint
from app.queue.transitions import ProcessExitStatus
from app.settings import Settings
from lora_core.child_protocol import EXIT_FAILED
from lora_core.errors import LoraCoreError
from lora_core.events import CheckpointSaved, Failed
from worker.child_process_supervisor import ChildResult
from worker.failures import attempt_result_from_child
from worker.recorder import Recorder, StepMetricValue
from worker.spawn import ChildProcess
from worker.workdir import AttemptDir

# -- Messages of the broker -----------------------------------------------------------------------

# Celery loads its app from a module, which reads the settings.
os.environ |= {
    "LORAWORKS_BROKER_URL": "redis://127.0.0.1:1/0",
    "LORAWORKS_DEVICES": "cpu",
    "LORAWORKS_LOG_LEVEL": "ERROR",
}
celery_app = import_module("worker.celery_app")


def message(data: bytes, directory: Path) -> None:
    """Receive a message. One that cannot be decoded costs the worker its connection."""
    del directory
    channel, requests = _channel(), _handler().requests
    try:
        received = Message(loads(bytes_to_str(data)), channel=channel)
        channel.qos.append(received, received.delivery_tag)
        repr(received.body[:1])
    except Exception:
        return
    _handler().on_message(received)
    if not received.acknowledged:
        received.ack()
    while requests:
        request = requests.pop()
        assert (request.name, str(UUID(request.id))) == (TASK_NAME, request.id)
        assert received.payload == [[], {}, {}]
        assert (request.eta, request.expires, request.time_limits) == (None, None, (None, None))


@cache
def _channel() -> Channel:
    return Connection("memory://").channel()


@cache
def _handler() -> Any:
    """Return a consumer without a worker; `requests` are the tasks that it would start."""
    consumer = object.__new__(celery_app.ResilientConsumer)
    requests: list[Any] = []
    consumer.__dict__ |= {
        "app": celery_app.app, "hostname": "worker", "connection_errors": (),
        "event_dispatcher": None, "timer": SimpleNamespace(call_at=None), "task_buckets": {},
        "disable_rate_limits": True, "on_task_request": requests.append, "restart_count": 0,
        "pool": SimpleNamespace(apply_async=None), "controller": SimpleNamespace(state=state),
        "on_task_message": set(), "_maximum_prefetch_restored": True,
    }  # fmt: skip
    task = celery_app.app.tasks[TASK_NAME]
    consumer.strategies = {TASK_NAME: task.start_strategy(celery_app.app, consumer)}
    return SimpleNamespace(on_message=consumer.create_task_handler(), requests=requests)


# -- Events of a training process -----------------------------------------------------------------

LEASE = Lease(UUID(int=1), attempt=1, worker="worker", seconds=60)
CLAIMED = ClaimedJob(
    LEASE, JobKind.TRAINING, spec={}, dataset_ids={}, register_as=None, promote_to=None,
    failure_count=0, furthest_step=0, failed_steps=frozenset(), checkpoint=None,
    time_limit_seconds=None, running_seconds=0.0, waiting_code=None, waited_seconds=None,
)  # fmt: skip


def events(data: bytes, directory: Path) -> None:
    """Read the output of a training process in two chunks; what it reports must fit its tables."""
    database: Any = None  # nothing is written
    recorder = Recorder(database, LEASE, heartbeat_seconds=1, delete_artifact=lambda _: None)
    attempt_dir = AttemptDir(LEASE.job_id, LEASE.attempt, directory)
    attempt_dir.checkpoints.mkdir(parents=True)
    with open(os.devnull, "rb") as pipe:
        process: Any = SimpleNamespace(pid=1, stdin=None, stdout=pipe, returncode=None)
        child, half = ChildProcess(process), len(data) // 2
        found = [*child._parse_lines(data[:half]), *child._parse_lines(data[half:] + b"\n")]
    for event in found:
        recorder.add_event(event)
        if isinstance(event, CheckpointSaved):
            try:
                attempt_dir.move_out_of_workspace("checkpoints", Path(event.directory).name)
            except (LoraCoreError, OSError) as error:
                str(error)
    for row in recorder._rows:
        if isinstance(row, StepMetricValue):
            _check_fits(MetricPoint.__table__, row._asdict())
        elif isinstance(row, EventContent):
            _check_fits(JobEvent.__table__, row._asdict())
    _check_fits(Job.__table__, {"step": recorder.step, "total_steps": recorder._total_steps})
    if found and isinstance(found[-1], Failed):
        exit_status = ProcessExitStatus(code=EXIT_FAILED)
        result = ChildResult(exit_status, None, found[-1], step=recorder.step)
        ended = vars(attempt_result_from_child(result, CLAIMED, Settings()))
        columns = {
            f"error_{name}": ended[name] for name in ("code", "message", "detail") if name in ended
        }
        _check_fits(Job.__table__, columns)


def _check_fits(table: Any, row: Mapping[str, Any]) -> None:
    """Assert that PostgreSQL can store the values, which is stricter than SQLite."""
    assert isinstance(table, Table)
    for name, value in row.items():
        kind = table.columns[name].type
        if isinstance(value, int) and isinstance(kind, Integer):
            assert -(2**31) <= value < 2**31, name
        if isinstance(value, str) and isinstance(kind, String):
            assert kind.length is None or len(value) <= kind.length, name
        if isinstance(value, str | dict | list):
            json.dumps(value, allow_nan=False)
            assert not any("\0" in text for text in _texts(value)), name


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            value.encode()
            yield value
        case dict():
            for key, each in value.items():
                yield from (*_texts(key), *_texts(each))
        case list():
            for each in value:
                yield from _texts(each)
