"""Jobs as Celery tasks, with a real broker that loses messages, restarts, and hangs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from uuid import UUID

import pytest
from celery import Celery
from sqlalchemy import update

from app.database.base import new_id
from app.database.engines import Database
from app.jobs.service import pause_job, resume_job
from app.queue.dispatch import CeleryNotifier, JobTask, message_priority
from app.queue.enums import AttemptOutcome, DeviceClass, JobState
from app.queue.tables import Job
from app.settings import Settings
from tests.job_rows import add_job, attempts, get_job, get_state
from tests.proxy import Proxy
from tests.servers import ValkeyServer, free_port
from tests.waiting import wait_until
from tests.worker.test_job_runner import GOOD
from worker import process_identity

pytestmark = pytest.mark.e2e

Start = Callable[..., subprocess.Popen[bytes]]
BAD_SETTINGS = 78
NOT_IN_TIME = 1
# Lists of the broker: message priorities other than 0 have their own.
NEW, INTERRUPTED = "loraworks.cpu\x06\x166", "loraworks.cpu\x06\x163"
NEVER = 3600  # seconds between polls: only tasks start jobs


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
            "lease_seconds": 120,
            "reconcile_seconds": 60,
            "retry_seconds": 0,
            "min_free_bytes": 0,
            **changes,
        }
        named = {f"LORAWORKS_{name.upper()}": str(each) for name, each in values.items() if each}
        named["TASK_HEAD_START_SECONDS"] = str(NEVER)  # but no longer than `poll_seconds`
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
    sys.stderr.write(log.read_text() if log.exists() else "")  # shown if the test has failed


def listen(broker: ValkeyServer, workers: int = 1) -> None:
    """Wait until this many workers listen."""

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


def test_task_runs_its_job_on_a_worker_of_its_device_class(
    database: Database,
    broker: ValkeyServer,
    notifier: CeleryNotifier,
    start: Start,
    store_requests: Path,
) -> None:
    worker = start(*GOOD, devices="auto")
    listen(broker)
    notifier.send(JobTask(new_id(), DeviceClass.CPU, priority=0))
    for device_class in (DeviceClass.GPU, DeviceClass.ANY):
        without_task = add_job(database, device_class=device_class, priority=9)
        job_id = add_job(database, device_class=device_class)
        notifier.send(JobTask(job_id, device_class))
        wait_until(partial(succeeded, database, job_id))
        assert get_state(database, without_task) is JobState.QUEUED
    with broker.client() as client:
        assert client.llen("loraworks.cpu") == 1
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert store_requests.read_text() == "\n"


@pytest.mark.slow  # the small form is in tests/conformance/test_claim.py
def test_duplicate_tasks_run_each_job_once(
    database: Database, broker: ValkeyServer, notifier: CeleryNotifier, start: Start
) -> None:
    for _ in range(2):
        start(*GOOD, concurrency=2)
    listen(broker, workers=2)
    jobs = [add_job(database) for _ in range(8)]
    for _ in range(5):
        for each in jobs:
            notifier.send(JobTask(each, "any"))
    wait_until(lambda: succeeded(database, *jobs), seconds=60)
    assert [len(attempts(database, each)) for each in jobs] == [1] * len(jobs)


@pytest.mark.slow  # test_broker_refusals.py is similar
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
        notifier.send(JobTask(job_id, "cpu"))
        wait_until(partial(succeeded, database, job_id), what="a job after a disturbance")


@pytest.mark.slow  # test_broker_refusals.py is similar
@pytest.mark.parametrize("how", ["absent", pytest.param("silent", marks=pytest.mark.slow)])
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


def shut_down(_: subprocess.Popen[bytes], broker: ValkeyServer) -> None:
    with Celery(broker=broker.url(), set_as_current=False) as client:
        client.control.shutdown()


def terminate(worker: subprocess.Popen[bytes], _: ValkeyServer) -> None:
    worker.send_signal(signal.SIGTERM)


@pytest.mark.slow  # the small form is in test_process.py
@pytest.mark.parametrize("stop", [terminate, pytest.param(shut_down, marks=pytest.mark.slow)])
@pytest.mark.parametrize("found_by", ["task", pytest.param("poll", marks=pytest.mark.slow)])
def test_draining_worker_requeues_its_job(
    database: Database,
    broker: ValkeyServer,
    notifier: CeleryNotifier,
    start: Start,
    tmp_path: Path,
    stop: Callable[[subprocess.Popen[bytes], ValkeyServer], None],
    found_by: str,
) -> None:
    file = tmp_path / "child"
    worker = start(
        "started:5",
        f"first:{file}",
        *GOOD,
        poll_seconds=NEVER if found_by == "task" else 0.2,
    )
    listen(broker)
    job_id = add_job(database)
    if found_by == "task":
        notifier.send(JobTask(job_id, "cpu"))
    number = wait_until(lambda: file.exists() and file.read_text(), seconds=40)
    child = process_identity.identify(int(number))
    stop(worker, broker)
    assert worker.wait(20) == 0
    assert not process_identity.is_alive(child)
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 0)
    assert attempts(database, job_id)[0].outcome == AttemptOutcome.PREEMPTED
    with broker.client() as client:
        assert client.llen(INTERRUPTED) == 1, "its next task was sent"


@pytest.mark.slow  # the small form is in tests/conformance/test_pause.py
def test_task_of_a_paused_job_frees_its_slot_and_the_resume_sends_another(
    database: Database, broker: ValkeyServer, notifier: CeleryNotifier, start: Start, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    start("started:5", f"until:{go}", *GOOD[1:], concurrency=1)
    listen(broker)
    job_id, other = add_job(database), add_job(database)
    notifier.send(JobTask(job_id, "cpu"))
    wait_until(lambda: get_state(database, job_id) is JobState.RUNNING)
    with database.write() as session:
        pause_job(session, job_id=job_id)
    wait_until(lambda: get_job(database, job_id).paused, what="the pause")
    notifier.send(JobTask(job_id, "cpu"))  # a late copy changes nothing
    go.touch()
    notifier.send(JobTask(other, "cpu"))
    wait_until(partial(succeeded, database, other), what="a job in the same slot")
    assert (get_job(database, job_id).paused, len(attempts(database, job_id))) == (True, 1)
    with database.write() as session:
        resume_job(session, job_id=job_id, notifier=notifier)
    wait_until(partial(succeeded, database, job_id))
    assert [each.outcome for each in attempts(database, job_id)] == [
        AttemptOutcome.PREEMPTED,
        AttemptOutcome.SUCCEEDED,
    ]


@pytest.mark.slow  # the small form is in test_process.py
def test_drain_timeout_is_reported(
    database: Database,
    broker: ValkeyServer,
    notifier: CeleryNotifier,
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Although the pool of threads has a task that does not end."""
    monkeypatch.setenv("FINAL_WRITE_SECONDS", "0.3")
    file = tmp_path / "child"
    worker = start("started:5", f"first:{file}", stop_grace_seconds=0.3)
    listen(broker)
    job_id = add_job(database)
    notifier.send(JobTask(job_id, "cpu"))
    wait_until(file.exists, seconds=40)
    with database.write() as session:  # no one else can write to the job
        session.execute(update(Job).where(Job.id == job_id).values(priority=1))
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == NOT_IN_TIME
    assert get_state(database, job_id) is JobState.RUNNING, "until its lease is over"


@pytest.mark.slow  # test_process.py kills a worker
def test_sigquit_ends_a_busy_worker_at_once(
    database: Database, broker: ValkeyServer, notifier: CeleryNotifier, start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "child"
    worker = start("started:5", f"first:{file}")
    listen(broker)
    job_id = add_job(database)
    notifier.send(JobTask(job_id, "cpu"))
    number = wait_until(lambda: file.exists() and file.read_text(), seconds=40)
    child = process_identity.identify(int(number))
    worker.send_signal(signal.SIGQUIT)
    assert worker.wait(10) != 0
    wait_until(lambda: not process_identity.is_alive(child))
    assert get_state(database, job_id) is JobState.RUNNING, "its lease expires"


@pytest.mark.slow  # the small form is in test_slots.py
def test_slots_limit_the_tasks_of_a_worker(
    database: Database, broker: ValkeyServer, notifier: CeleryNotifier, start: Start, tmp_path: Path
) -> None:
    """The third task waits in the broker, where another worker could take it."""
    start("started:5", "hang", concurrency=2)
    listen(broker)
    jobs = [add_job(database) for _ in range(3)]
    for each in jobs:
        notifier.send(JobTask(each, "cpu"))
    expected = [JobState.RUNNING, JobState.RUNNING, JobState.QUEUED]
    wait_until(lambda: [get_state(database, each) for each in jobs] == expected)
    with broker.client() as client:
        assert client.llen(NEW) == 1
    start(*GOOD)
    wait_until(partial(succeeded, database, jobs[2]), seconds=40)


@pytest.mark.parametrize(
    ("option", "hint"),
    [
        ("--concurrency=3", "LORAWORKS_CONCURRENCY"),
        pytest.param("--autoscale=3,1", "LORAWORKS_CONCURRENCY", marks=pytest.mark.slow),
        pytest.param("--pool=solo", "thread", marks=pytest.mark.slow),
        pytest.param("-Q=gpu", "LORAWORKS_DEVICES", marks=pytest.mark.slow),
    ],
)
def test_options_that_do_not_fit_the_slots_are_rejected(
    start: Start, log: Path, option: str, hint: str
) -> None:
    worker = start(*GOOD, "--", *option.split("="))
    assert worker.wait(60) == BAD_SETTINGS
    line = json.loads(log.read_text().splitlines()[-1])
    assert line["code"] == "celery_option_invalid"
    assert option.partition("=")[0] in line["error"]
    assert hint in line["error"]


@pytest.mark.slow  # the small form is in tests/conformance/test_claim.py
def test_tasks_run_in_the_order_of_the_queue(
    database: Database, notifier: CeleryNotifier, start: Start
) -> None:
    rows = {
        "low": {"priority": -1},
        "first": {},
        "second": {},
        "interrupted": {"attempt": 1},
        "high": {"priority": 1},
    }
    ids = {name: add_job(database, **changes) for name, changes in rows.items()}
    for name, changes in rows.items():
        priority = message_priority(changes.get("priority", 0), attempt=changes.get("attempt", 0))
        notifier.send(JobTask(ids[name], "cpu", priority))
    start(*GOOD)
    wait_until(lambda: succeeded(database, *ids.values()), seconds=60)
    started = {name: attempts(database, job_id)[-1].started_at for name, job_id in ids.items()}
    order = ["high", "interrupted", "first", "second", "low"]
    assert sorted(started, key=started.__getitem__) == order


@pytest.mark.slow  # test_task_runs_its_job_on_a_worker_of_its_device_class is similar
def test_selected_queue_limits_the_devices(
    database: Database,
    broker: ValkeyServer,
    notifier: CeleryNotifier,
    start: Start,
    store_requests: Path,
) -> None:
    """`-Q gpu` on a machine whose worker could use the CPU, too."""
    start(*GOOD, "--", "-Q", "gpu", devices="cpu,cuda:0", poll_seconds=0.2)
    listen(broker)
    on_cpu = add_job(database, device_class=DeviceClass.CPU)
    notifier.send(JobTask(on_cpu, "cpu"))
    on_gpu, anywhere = (add_job(database, device_class=each) for each in ("gpu", "any"))
    notifier.send(JobTask(on_gpu, "gpu"))
    wait_until(lambda: succeeded(database, on_gpu, anywhere), seconds=40)
    assert get_state(database, on_cpu) is JobState.QUEUED


@pytest.mark.slow  # the small form is in test_process.py
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
