"""The services of docker-compose.yml as real processes: jobs survive a killed worker."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import select

from app.database.engines import Database, open_database
from app.queue.tables import Worker
from app.settings import Settings
from tests.e2e.composed import Composed
from tests.job_rows import attempts
from tests.servers import PostgresServer
from tests.tiny_base import make_base, make_reviews
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

STARTED = ("api", "worker", "postgres", "valkey")
POLL = 0.3  # seconds


@pytest.fixture
def cluster(tmp_path: Path, postgres: PostgresServer) -> Iterator[Composed]:
    """PostgreSQL and Valkey run; the rest is started by the test."""
    made = Composed(tmp_path, postgres, LORAWORKS_BASE_DIRS=str(tmp_path))
    yield made
    made.close()


@pytest.fixture
def database(cluster: Composed) -> Iterator[Database]:
    """The database of the cluster."""
    opened = open_database(Settings(database_url=cluster.database_url()))
    yield opened
    opened.close()


def output_of(process: subprocess.Popen[str]) -> str:
    """The output of a command that succeeds."""
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0, printed
    return printed


def processes(database: Database) -> dict[str, int]:
    """Worker → its process."""
    with database.read() as session:
        return {row.id: row.pid for row in session.execute(select(Worker.id, Worker.pid))}


def submit(client: httpx2.Client, base: Path) -> UUID:
    body = {
        "method": {"type": "lora", "r": 4, "targets": ["query", "value", "mlp"]},
        "base": str(base),
        "data": {"source": "reviews"},
        "optim": {"epochs": 3, "batch_size": 8, "learning_rate": 0.01},
        "result": {"cross_validation": False},
    }
    sent = client.post("/v1/jobs", json=body)
    assert sent.status_code == 202, sent.text
    return UUID(sent.json()["id"])


@pytest.mark.slow  # the small forms are in tests/worker/test_celery.py and test_process.py
@pytest.mark.parametrize(
    "count",
    [
        1,  # the other worker continues it
        pytest.param(2, marks=pytest.mark.slow),  # one for each; tests/worker/test_celery.py shares
    ],
)
def test_jobs_are_shared_and_survive_a_worker(
    cluster: Composed, database: Database, tmp_path: Path, count: int
) -> None:
    assert "from none to" in output_of(cluster.start("migrate"))
    assert "up to date" in output_of(cluster.start("migrate"))
    key = json.loads(output_of(cluster.start("api", "keys", "create", "admin", "--json")))["key"]
    assert [name for name in STARTED if not cluster.is_well(name)] == ["api", "worker"]

    api = cluster.start("api")
    workers = {
        process.pid: process for process in (cluster.start("worker"), cluster.start("worker"))
    }
    wait_until(
        lambda: set(processes(database).values()) == set(workers), seconds=60, what="both workers"
    )
    for name in STARTED:
        wait_until(partial(cluster.is_well, name), seconds=60, what=name, pause=POLL)
    ready = httpx2.get(f"{cluster.url}/readyz").json()["parts"]
    assert ready == {"database": "ok", "store": "ok", "disk": "ok", "broker": "ok"}
    assert httpx2.get(f"{cluster.url}/v1/jobs").status_code == 401

    headers = {"Authorization": f"Bearer {key}"}
    with httpx2.Client(base_url=cluster.url, headers=headers, timeout=30) as client:
        with make_reviews(tmp_path / "reviews.csv").open("rb") as file:
            sent = client.post("/v1/datasets", files={"file": ("reviews.csv", file)})
        assert sent.status_code == 201, sent.text
        base = make_base(tmp_path / "tiny")
        jobs = [submit(client, base) for _ in range(count)]

        def states() -> dict[UUID, dict[str, Any]]:
            return {job_id: client.get(f"/v1/jobs/{job_id}").json() for job_id in jobs}

        def under_way() -> list[UUID]:
            return [
                job_id
                for job_id, row in states().items()
                if row["state"] == "running" and row["progress"]
            ]

        wait_until(lambda: len(under_way()) == count, seconds=120, what="all jobs", pause=POLL)
        lost = under_way()[0]
        victim = attempts(database, lost)[-1].worker
        os.kill(processes(database)[victim], signal.SIGKILL)

        def all_ended() -> bool:
            return all(row["state"] not in ("queued", "running") for row in states().values())

        wait_until(all_ended, seconds=120, what="the end of all jobs", pause=POLL)
        assert {row["state"] for row in states().values()} == {"succeeded"}, cluster.log()

    runs = [attempts(database, job_id) for job_id in jobs]
    assert {run.worker for each in runs for run in each} == set(processes(database))
    assert victim not in {each[-1].worker for each in runs}
    assert attempts(database, lost)[-1].attempt > 1

    survivors = [
        api,
        *(each for pid, each in workers.items() if pid != processes(database)[victim]),
    ]
    for process in survivors:
        process.terminate()
    assert [process.wait(timeout=60) for process in survivors] == [0, 0]
    cluster.valkey.stop(signal.SIGTERM)
