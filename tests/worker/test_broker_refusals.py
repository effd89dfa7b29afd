"""A worker whose broker refuses commands: read-only, full, or a key of the wrong type."""

import json
import signal
from functools import partial
from pathlib import Path

import pytest

from app.database.engines import Database
from tests.job_rows import add_job
from tests.servers import ValkeyServer
from tests.waiting import wait_until
from tests.worker.test_celery import Start, broker, database_kind, listen, log, start, succeeded
from tests.worker.test_job_runner import GOOD

__all__ = ["broker", "database_kind", "log", "start"]

pytestmark = pytest.mark.e2e

REFUSALS = [
    ("SET loraworks.cpu text", "DEL loraworks.cpu", "WRONGTYPE"),
    ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read only"),
    ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "maxmemory"),
]


def test_worker_survives_a_refusing_broker(
    database: Database, broker: ValkeyServer, start: Start, log: Path
) -> None:
    """The worker starts despite a refusal, and survives others."""

    def logged(problem: str) -> int:
        lines = log.read_text().splitlines()
        return sum("the broker refuses" in each and problem in each for each in lines)

    with broker.client() as client:
        client.execute_command(REFUSALS[0][0])
        worker = start(*GOOD, poll_seconds=0.2)
        for harm, cure, problem in REFUSALS:
            client.execute_command(harm)
            client.client_kill_filter(_type="normal", skipme=True)
            wait_until(partial(logged, problem), seconds=40, what=f"a word about {problem}")
            job_id = add_job(database)
            wait_until(partial(succeeded, database, job_id), what="a job that was polled for")
            client.execute_command(cure)
            listen(broker)
            assert logged(problem) == 1
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    lines = [json.loads(each) for each in log.read_text().splitlines()]
    assert "py.warnings" not in {each["logger"] for each in lines}
