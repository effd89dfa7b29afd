"""Workers woken by a real broker that loses messages, restarts, and hangs."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest

from app.database.base import new_id
from app.database.engines import Database
from app.queue.dispatch import CeleryNotifier
from app.queue.states import AttemptOutcome, DeviceClass, JobState
from app.settings import Settings
from tests.job_rows import add_job, attempts, get_job, get_state
from tests.proxy import Proxy
from tests.servers import ValkeyServer, free_port
from tests.waiting import wait_until
from tests.worker.test_run_job import GOOD
from worker import process_identity

pytestmark = pytest.mark.e2e

Start = Callable[..., subprocess.Popen[bytes]]
BAD_SETTINGS = 78
NEVER = 3600  # seconds between polls: only a message wakes it


@pytest.fixture
def database_kind() -> str:
    return "postgresql"


@pytest.fixture
def broker() -> Iterator[ValkeyServer]:
    """An empty broker that the test may stop."""
    server = ValkeyServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def notifier(broker: ValkeyServer) -> Iterator[CeleryNotifier]:
    made = CeleryNotifier(broker.url())
    yield made
    made.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "worker.log"


@pytest.fixture
def start(settings: Settings, broker: ValkeyServer, log: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []
    script = Path(__file__).with_name("celery_process.py")

    def begin(*actions: str, **changes: object) -> subprocess.Popen[bytes]:
        values: dict[str, object] = {
            "data_dir": settings.data_dir,
            "database_url": settings.sqlalchemy_url,
            "broker_url": broker.url(),
            "devices": "cpu",
            "poll_seconds": NEVER,
            "heartbeat_seconds": 0.2,
            "lease_seconds": 30,
            "reconcile_seconds": 60,
            "retry_seconds": 0,
            "min_free_bytes": 0,
            **changes,
        }
        named = {f"LORAWORKS_{name.upper()}": str(each) for name, each in values.items() if each}
        with log.open("ab") as output:
            worker = subprocess.Popen(
                [sys.executable, str(script), *actions],
                stdout=subprocess.DEVNULL,  # for Celery's banner
                stderr=output,
                env=os.environ | named,
            )
        started.append(worker)
        return worker

    yield begin
    for worker in started:
        worker.kill()
        worker.wait()


def listen(broker: ValkeyServer, workers: int = 1) -> None:
    """Wait until this many workers listen. They have polled before."""

    def listening() -> bool:
        with broker.client() as client:
            return [each["cmd"] for each in client.client_list()].count("brpop") >= workers

    wait_until(listening, seconds=40, what="a worker that listens")


def succeeded(database: Database, *jobs: UUID) -> bool:
    return {get_state(database, each) for each in jobs} == {JobState.SUCCEEDED}


@pytest.fixture
def store_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One GPU; the file has a line for each `nvidia-smi` call."""
    file = tmp_path / "asked"
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho '0, GPU-1'\necho >> {file}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return file


def test_message_wakes_a_worker_of_its_device_class(
    database: Database,
    broker: ValkeyServer,
    notifier: CeleryNotifier,
    start: Start,
    store_requests: Path,
) -> None:
    worker = start(*GOOD, devices="auto")
    listen(broker)
    notifier.notify(new_id(), device_class=DeviceClass.CPU)
    for device_class in (DeviceClass.GPU, DeviceClass.ANY):
        job_id = add_job(database, device_class=device_class)
        notifier.notify(job_id, device_class=device_class)
        wait_until(partial(succeeded, database, job_id))
    with broker.client() as client:
        assert client.llen("loraworks.cpu") == 1
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert store_requests.read_text() == "\n"


def test_duplicate_messages_start_each_job_once(
    database: Database, broker: ValkeyServer, notifier: CeleryNotifier, start: Start
) -> None:
    for _ in range(2):
        start(*GOOD, concurrency=2)
    listen(broker, workers=2)
    jobs = [add_job(database) for _ in range(8)]
    for _ in range(5):
        for each in jobs:
            notifier.notify(each, device_class="any")
    wait_until(lambda: succeeded(database, *jobs), seconds=60)
    assert [len(attempts(database, each)) for each in jobs] == [1] * len(jobs)


def test_no_job_is_lost_by_a_broker_restart(
    database: Database, broker: ValkeyServer, notifier: CeleryNotifier, start: Start
) -> None:
    start(*GOOD)
    listen(broker)
    for disturb in (broker.flush, broker.restart, broker.kill):
        disturb()
        if broker.process is None:
            broker.start()
        listen(broker)
        job_id = add_job(database)
        notifier.notify(job_id, device_class="cpu")
        wait_until(partial(succeeded, database, job_id), what="a job after a disturbance")


@pytest.mark.parametrize("how", ["absent", "silent"])
def test_without_broker_jobs_are_found_by_polling(
    database: Database, broker: ValkeyServer, start: Start, how: str
) -> None:
    with Proxy(broker.port) as proxy:
        proxy.blackhole()
        port = free_port() if how == "absent" else proxy.port
        worker = start(*GOOD, broker_url=broker.url(port=port), poll_seconds=0.2)
        jobs = [add_job(database) for _ in range(2)]
        wait_until(lambda: succeeded(database, *jobs))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0


def test_draining_worker_requeues_its_job(
    database: Database, broker: ValkeyServer, start: Start, tmp_path: Path
) -> None:
    job_id = add_job(database)
    file = tmp_path / "child"
    worker = start("started:5", f"first:{file}", *GOOD)
    number = wait_until(lambda: file.exists() and file.read_text(), seconds=40)
    child = process_identity.identify(int(number))
    listen(broker)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert not process_identity.is_alive(child)
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 0)
    assert attempts(database, job_id)[0].outcome == AttemptOutcome.PREEMPTED


def test_startup_error_is_reported(start: Start, log: Path) -> None:
    """Before it has an application, and after."""
    wrong: list[dict[str, object]] = [
        {"broker_url": None},
        {"database_url": "postgresql://me:hunter2@localhost:1/jobs"},
    ]
    workers = [start(**each) for each in wrong]
    assert [each.wait(60) for each in workers] == [BAD_SETTINGS] * 2
    text = log.read_text()
    assert text.count("cannot start the worker") == 2
    assert "LORAWORKS_BROKER_URL" in text
    assert "'jobs' on localhost:1" in text
    assert "Traceback" not in text
    assert "hunter2" not in text
