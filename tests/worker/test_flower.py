"""Running jobs in the tools of Celery: Flower, `celery inspect` and `celery control`."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from celery import Celery

from app.database.engines import Database
from app.jobs import repository
from app.queue.dispatch import CeleryNotifier, JobTask
from app.queue.enums import JobState
from app.settings import Settings
from tests import compose
from tests.job_rows import add_job, get_state
from tests.servers import HOST, ValkeyServer, free_port
from tests.waiting import wait_until
from tests.worker.test_celery import Start, database_kind, listen, log, notifier, start

__all__ = ["database_kind", "log", "notifier", "start"]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PASSWORD = "p" * 16


class LimitedValkey(ValkeyServer):
    """Valkey whose clients have the permissions of docker-compose.yml."""

    def start(self) -> None:
        super().start()
        words = compose.words(compose.services({"VALKEY_PASSWORD": PASSWORD})["valkey"]["command"])
        user = words[words.index("loraworks") + 1 :]
        with self.client() as client:
            client.execute_command("ACL SETUSER", "loraworks", *user)

    def url(self, *, port: int | None = None) -> str:
        return f"redis://loraworks:{PASSWORD}@{HOST}:{port or self.port}/0"


@pytest.fixture
def broker() -> Iterator[ValkeyServer]:
    server = LimitedValkey()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def environment(settings: Settings, broker: ValkeyServer) -> dict[str, str]:
    return os.environ | {
        "LORAWORKS_DATA_DIR": str(settings.data_dir),
        "LORAWORKS_BROKER_URL": broker.url(),
        "LORAWORKS_DEVICES": "cpu",
        "FLOWER_UNAUTHENTICATED_API": "true",
    }


COMMAND = (sys.executable, "-P", "-m", "celery", "-A", "worker.celery_app")


@pytest.fixture
def flower(environment: dict[str, str], tmp_path: Path) -> Iterator[httpx2.Client]:
    """A client of Flower."""
    port = free_port()
    options = (f"--address={HOST}", f"--port={port}")
    with (
        (tmp_path / "flower.log").open("wb") as output,
        subprocess.Popen(
            [*COMMAND, "flower", *options], env=environment, cwd=tmp_path, stderr=output
        ) as process,
        httpx2.Client(base_url=f"http://{HOST}:{port}") as client,
    ):
        yield client
        process.kill()


def task_in(flower: httpx2.Client, job_id: UUID) -> dict[str, Any]:
    try:
        response = flower.get(f"/api/task/info/{job_id}")
    except httpx2.TransportError:  # it starts
        return {}
    return dict(response.json()) if response.status_code == 200 else {}


def wait_for_state(flower: httpx2.Client, job_id: UUID, state: str) -> None:
    wait_until(
        lambda: task_in(flower, job_id).get("state") == state,
        seconds=30,
        pause=0.1,
        what=f"{state} in Flower",
    )


def active_jobs(environment: dict[str, str]) -> set[str]:
    """What `celery inspect active` prints."""
    command = [*COMMAND, "inspect", "active", "--json"]
    printed = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    return {task["id"] for tasks in json.loads(printed).values() for task in tasks}


@pytest.mark.slow  # three processes of Celery
def test_tools_of_celery_show_a_running_job(
    database: Database,
    broker: ValkeyServer,
    notifier: CeleryNotifier,
    start: Start,
    environment: dict[str, str],
    flower: httpx2.Client,
    tmp_path: Path,
) -> None:
    wait_until(partial(is_up, flower), seconds=30, pause=0.1, what="Flower")
    start("started:5", f"until:{tmp_path / 'go'}", "steps:5", "evaluated:test", "succeed")
    listen(broker)
    job_id = add_job(database)
    notifier.send(JobTask(job_id, "cpu"))
    wait_for_state(flower, job_id, "STARTED")
    assert active_jobs(environment) == {str(job_id)}
    assert list(flower.get("/api/workers?status=true").json().values()) == [True]
    notifier.send(JobTask(job_id, "cpu"))  # a copy changes nothing
    (tmp_path / "go").touch()
    wait_for_state(flower, job_id, "SUCCESS")
    assert get_state(database, job_id) is JobState.SUCCEEDED
    assert active_jobs(environment) == set()


def is_up(flower: httpx2.Client) -> bool:
    try:
        return flower.get("/healthcheck").status_code == 200
    except httpx2.TransportError:
        return False


def cancel(database: Database, job_id: UUID, _: subprocess.Popen[bytes]) -> None:
    with database.write() as session:
        repository.request_cancel(session, job_id)


def pause(database: Database, job_id: UUID, _: subprocess.Popen[bytes]) -> None:
    with database.write() as session:
        repository.request_pause(session, job_id)


def terminate(_database: Database, _: UUID, worker: subprocess.Popen[bytes]) -> None:
    worker.send_signal(signal.SIGTERM)


def fail(*_: object) -> None:
    """Do nothing: the training fails by itself."""


@pytest.mark.slow  # a running job is in the test above
@pytest.mark.parametrize(
    ("end", "actions", "state"),
    [
        (fail, ("failed:one_class", "exit:65"), "FAILURE"),
        (cancel, ("hang",), "REVOKED"),
        (terminate, ("hang",), "RETRY"),
        (pause, ("hang",), "RETRY"),
    ],
)
def test_task_ends_in_the_state_of_its_job(
    database: Database,
    broker: ValkeyServer,
    notifier: CeleryNotifier,
    start: Start,
    flower: httpx2.Client,
    end: Callable[[Database, UUID, subprocess.Popen[bytes]], None],
    actions: tuple[str, ...],
    state: str,
) -> None:
    wait_until(partial(is_up, flower), seconds=30, pause=0.1, what="Flower")
    worker = start("started:5", "sleep:1", *actions)
    listen(broker)
    job_id = add_job(database)
    notifier.send(JobTask(job_id, "cpu"))
    wait_for_state(flower, job_id, "STARTED")
    end(database, job_id, worker)
    wait_for_state(flower, job_id, state)
    if state == "FAILURE":
        assert "one_class: " in task_in(flower, job_id)["exception"]


@pytest.mark.slow  # a setting of Celery
def test_remote_control_can_be_turned_off(
    database: Database, broker: ValkeyServer, notifier: CeleryNotifier, start: Start
) -> None:
    def answers() -> object:
        with Celery(broker=broker.url(), set_as_current=False) as client:
            client.conf.control_queue_expires = None
            return client.control.inspect(timeout=2).ping()

    start("started:5", "hang")
    listen(broker)
    assert answers()
    with Celery(broker=broker.url(), set_as_current=False) as client:
        client.control.shutdown()
    wait_until(lambda: not answers(), what="the end of the worker")
    worker = start("started:5", "hang", remote_control="off")
    listen(broker)
    assert not answers()
    with Celery(broker=broker.url(), set_as_current=False) as client:
        client.control.shutdown()
    job_id = add_job(database)
    notifier.send(JobTask(job_id, "cpu"))
    wait_until(lambda: get_state(database, job_id) is JobState.RUNNING)
    assert worker.poll() is None
