"""Jobs are claimed for free slots until the worker drains."""

import threading
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from app.database import base
from app.database.engines import Database
from app.jobs import repository
from app.queue import dispatch, heartbeats
from app.queue.enums import DeviceClass, JobState
from app.queue.fencing import ClaimedJob
from app.queue.tables import Worker
from app.resources import Resources
from tests.job_rows import ALICE, BOB, add_job, attempts, get_job, get_state, update_job
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from tests.worker.test_job_runner import GOOD
from worker.devices import CPU, Device, Slot, SlotPool
from worker.host_health import HostHealthChecker
from worker.job_runner import JobRunner
from worker.poller import Poller

GPU = Device("cuda:0", "GPU-1")
NEVER = 3600.0  # seconds between two polls: only a wake-up helps


@pytest.fixture
def draining() -> threading.Event:
    return threading.Event()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Trainings in `Held` end when it opens."""
    opened = threading.Event()
    yield opened
    opened.set()


class Held(JobRunner):
    """Holds its slot until the gate opens, and leaves the job as it is."""

    gate: threading.Event

    def run(self, claimed: ClaimedJob, slot: Slot) -> None:  # noqa: ARG002
        assert self.gate.wait(30)


@pytest.fixture
def make(
    resources: Resources, draining: threading.Event, tmp_path: Path
) -> Iterator[Callable[..., tuple[Poller, SlotPool]]]:
    """A running poller."""
    made: list[tuple[Poller, threading.Thread, SlotPool]] = []

    def start(
        *devices: Device,
        cpu_slots: int = 1,
        poll_seconds: float = 0.05,
        gate: threading.Event | None = None,
        **settings: object,
    ) -> tuple[Poller, SlotPool]:
        slots = SlotPool(devices or (CPU,), cpu_slots=cpu_slots, lock_dir=tmp_path / "devices")
        settings |= {"poll_seconds": poll_seconds}
        patient = resources.settings.model_copy(update=settings)
        with_poll = Resources(
            settings=patient,
            database=resources.database,
            store=resources.store,
            notifier=resources.notifier,
        )
        scripted(*GOOD)
        host = HostHealthChecker(with_poll)
        runner = JobRunner(with_poll, draining=draining, host_health=host)
        if gate is not None:
            runner = Held(resources, draining=draining, host_health=HostHealthChecker(resources))
            runner.gate = gate
        poller = Poller(with_poll, ALICE, runner, slots, draining=draining, host_health=host)
        thread = threading.Thread(target=poller.run, name="poller")
        thread.start()
        made.append((poller, thread, slots))
        return poller, slots

    yield start
    draining.set()
    for poller, thread, slots in made:
        poller.wake()
        thread.join(10)
        assert not thread.is_alive()
        assert slots.wait_idle(20)


Make = Callable[..., tuple[Poller, SlotPool]]


def running(database: Database, *jobs: UUID) -> list[UUID]:
    return [each for each in jobs if get_state(database, each) is JobState.RUNNING]


def test_queued_job_is_claimed_and_run(database: Database, make: Make) -> None:
    job_id = add_job(database)
    make()
    wait_until(lambda: get_state(database, job_id) is JobState.SUCCEEDED)
    assert attempts(database, job_id)[0].device == "cpu"


def test_wake_between_two_polls_is_not_lost(database: Database, make: Make) -> None:
    poller, _ = make(poll_seconds=NEVER)
    job_id = add_job(database)
    poller.wake()
    wait_until(lambda: get_state(database, job_id) is JobState.SUCCEEDED)


def test_drain_right_after_the_check_is_noticed(
    make: Make, draining: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    poller: Poller | None = None
    check = draining.wait

    def drained_next(timeout: float | None = None) -> bool:
        if poller is None:
            return check(timeout)
        draining.set()
        poller.wake()
        return False

    monkeypatch.setattr(draining, "wait", drained_next)
    poller, _ = make(poll_seconds=NEVER)
    poller.wake()
    wait_until(draining.is_set)
    monkeypatch.undo()
    poller_thread = next(each for each in threading.enumerate() if each.name == "poller")
    poller_thread.join(10)
    assert not poller_thread.is_alive()


def test_job_run_by_id_shares_the_slots(
    database: Database, make: Make, gate: threading.Event
) -> None:
    older = add_job(database)
    poller, slots = make(CPU, GPU, cpu_slots=1, poll_seconds=NEVER, gate=gate)
    wait_until(lambda: running(database, older))
    named = add_job(database)
    on_gpu = add_job(database, device_class=DeviceClass.GPU)
    tasks = [
        threading.Thread(target=poller.wait_for_slot_and_run_job, args=[each])
        for each in (named, on_gpu)
    ]
    for task in tasks:
        task.start()
    wait_until(lambda: running(database, on_gpu))
    assert slots.try_acquire() is None
    assert tasks[0].is_alive(), "it keeps its thread, so that no further task is received"
    assert get_state(database, named) is JobState.QUEUED
    gate.set()
    for task in tasks:
        task.join(10)
    assert [each.outcome for each in attempts(database, named)], "the waiting task has run it"


def test_task_of_a_job_that_has_ended_returns(database: Database, make: Make) -> None:
    job_id = add_job(database)
    poller, _ = make()
    wait_until(lambda: get_state(database, job_id) is JobState.SUCCEEDED)
    poller.wait_for_slot_and_run_job(job_id)
    assert len(attempts(database, job_id)) == 1


def test_task_of_a_job_that_is_cancelled_waits_no_longer(
    database: Database, make: Make, gate: threading.Event
) -> None:
    on_gpu = add_job(database, device_class=DeviceClass.GPU)
    poller, _ = make(GPU, poll_seconds=NEVER, gate=gate)
    wait_until(lambda: running(database, on_gpu))
    waiting = add_job(database, device_class=DeviceClass.GPU)
    task = threading.Thread(target=poller.wait_for_slot_and_run_job, args=[waiting])
    task.start()
    task.join(0.5)
    assert task.is_alive()
    update_job(database, waiting, state=JobState.CANCELLED, finished_at=base.now())
    task.join(10)
    assert not task.is_alive()


def test_task_of_a_job_that_has_ended_waits_for_no_slot(
    database: Database, make: Make, gate: threading.Event
) -> None:
    on_gpu = add_job(database, device_class=DeviceClass.GPU)
    poller, _ = make(CPU, GPU, poll_seconds=NEVER, gate=gate)
    wait_until(lambda: running(database, on_gpu))
    ended = add_job(database, state=JobState.CANCELLED, finished_at=base.now())
    task = threading.Thread(target=poller.wait_for_slot_and_run_job, args=[ended])
    task.start()
    task.join(10)
    assert not task.is_alive()


def test_waiting_task_returns_when_the_worker_drains(
    database: Database, make: Make, gate: threading.Event, draining: threading.Event
) -> None:
    older = add_job(database)
    poller, _ = make(poll_seconds=NEVER, gate=gate)
    wait_until(lambda: running(database, older))
    named = add_job(database)
    task = threading.Thread(target=poller.wait_for_slot_and_run_job, args=[named])
    task.start()
    draining.set()
    task.join(10)
    assert not task.is_alive()
    assert attempts(database, named) == []
    gate.set()


def test_with_a_broker_a_free_slot_waits_for_a_task_first(
    database: Database, make: Make, gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.poller.TASK_HEAD_START_SECONDS", 3600)
    oldest, named = add_job(database), add_job(database)
    poller, _ = make(poll_seconds=NEVER, gate=gate, broker_url="redis://not-used")
    thread = threading.Thread(target=poller.wait_for_slot_and_run_job, args=[named])
    thread.start()
    wait_until(lambda: running(database, named))
    gate.set()
    thread.join(10)
    assert get_state(database, oldest) is JobState.QUEUED


def test_each_free_slot_gets_a_job(database: Database, make: Make, gate: threading.Event) -> None:
    jobs = [add_job(database) for _ in range(3)]
    poller, _ = make(cpu_slots=2, poll_seconds=NEVER, gate=gate)
    wait_until(lambda: len(running(database, *jobs)) == 2)
    poller.wake()
    time.sleep(0.2)
    assert len(running(database, *jobs)) == 2
    gate.set()
    wait_until(lambda: len(running(database, *jobs)) == 3, what="a job in the slot that came back")


def test_full_disk_leaves_jobs_to_other_workers(database: Database, make: Make) -> None:
    def announce(seen_at: float, devices: list[str], *, draining: bool = False) -> None:
        with database.write() as session:
            heartbeats.record_heartbeat(session, BOB, draining=draining, devices=devices)
            session.flush()
            session.execute(update(Worker).values(seen_at=seen_at))

    announce(NEVER + time.time(), ["cuda:0", "cpu"])
    job_id = add_job(database)
    with structlog.testing.capture_logs() as logs:
        make(min_free_bytes=2**60)
        time.sleep(0.5)  # ten looks
        assert get_state(database, job_id) is JobState.QUEUED
        assert attempts(database, job_id) == []
        announce(NEVER + time.time(), ["cuda:0"])  # of no use for this one
        wait_until(lambda: get_job(database, job_id).waiting_code == "storage_unavailable")
    messages = [line for line in logs if line["event"] == "not claiming jobs"]
    assert [line["code"] for line in messages] == ["insufficient_disk_space"]
    assert attempts(database, job_id) == []
    with database.write() as session:  # as the reconciler of a worker that has room
        dispatch.clear_waiting_for_storage(session, [DeviceClass.CPU])
    wait_until(lambda: get_job(database, job_id).waiting_code == "storage_unavailable", what="anew")


def test_store_outage_costs_one_attempt(
    resources: Resources,
    database: Database,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.storage.store.CHECK_TTL_SECONDS", 0.1)
    root = resources.settings.artifacts_dir
    for _ in range(2):  # the folder exists and was seen
        resources.store.read_clock()
    away = root.rename(root.with_name("away"))
    first, second = add_job(database, priority=1), add_job(database)
    make(retry_seconds=0, hub_timeout_seconds=0)
    wait_until(lambda: get_job(database, second).waiting_code == "storage_unavailable")
    time.sleep(1)  # twenty looks
    assert (len(attempts(database, first)), attempts(database, second)) == (1, [])
    assert {get_state(database, each) for each in (first, second)} == {JobState.QUEUED}
    away.rename(root)
    wait_until(lambda: get_state(database, second) is JobState.SUCCEEDED, what="the second job")
    assert get_state(database, first) is JobState.SUCCEEDED
    assert get_job(database, first).failures_counted == 0


def test_job_waiting_for_the_store_can_be_cancelled(
    resources: Resources, database: Database, make: Make
) -> None:
    for _ in range(2):
        resources.store.read_clock()
    root = resources.settings.artifacts_dir
    root.rename(root.with_name("away"))
    job_id = add_job(database)
    make()
    wait_until(lambda: get_job(database, job_id).waiting_code == "storage_unavailable")
    with database.write() as session:
        repository.request_cancel(session, job_id)
    wait_until(lambda: get_state(database, job_id) is JobState.CANCELLED)


@pytest.mark.parametrize(
    ("age", "draining", "there"), [(0, False, True), (0, True, False), (61, False, False)]
)
def test_other_workers_must_be_alive_and_not_draining(
    database: Database, age: float, draining: bool, there: bool
) -> None:
    with database.write() as session:
        heartbeats.record_heartbeat(session, BOB, draining=draining, devices=["cpu"])
        session.flush()
        session.execute(update(Worker).values(seen_at=base.now() - age))
    with database.read() as session:
        found = heartbeats.has_other_live_worker(
            session, DeviceClass.CPU, exclude=ALICE, lease_seconds=60
        )
        assert found is there
        assert not heartbeats.has_other_live_worker(
            session, DeviceClass.CPU, exclude=BOB, lease_seconds=60
        )


def test_each_device_runs_jobs_of_its_class(
    database: Database, make: Make, gate: threading.Event
) -> None:
    cpu = [add_job(database, device_class=DeviceClass.CPU) for _ in range(2)]
    gpu = add_job(database, device_class=DeviceClass.GPU)
    make(CPU, GPU, gate=gate)
    wait_until(lambda: running(database, *cpu, gpu) == [cpu[0], gpu])
    assert [attempts(database, each)[0].device for each in (cpu[0], gpu)] == ["cpu", "cuda:0"]
    assert get_state(database, cpu[1]) is JobState.QUEUED


def test_job_for_any_device_keeps_the_class_that_claimed_it(
    database: Database, make: Make, gate: threading.Event
) -> None:
    job_id = add_job(database, device_class=DeviceClass.ANY)
    make(GPU, gate=gate)
    wait_until(lambda: running(database, job_id))
    assert get_job(database, job_id).device_class == DeviceClass.GPU


def test_slot_freed_during_a_drain_claims_nothing(
    resources: Resources, database: Database, draining: threading.Event, tmp_path: Path
) -> None:
    job_id = add_job(database)

    class LastSlot(SlotPool):
        """The drain begins while the poller takes it."""

        def try_acquire(self, *, exclude: Container[DeviceClass] = ()) -> Slot | None:
            draining.set()
            return super().try_acquire(exclude=exclude)

    slots = LastSlot((CPU,), cpu_slots=1, lock_dir=tmp_path)
    scripted(*GOOD)
    runner = JobRunner(resources, draining=draining, host_health=HostHealthChecker(resources))
    Poller(
        resources, ALICE, runner, slots, draining=draining, host_health=HostHealthChecker(resources)
    ).run()
    assert slots.wait_idle(10)
    assert get_state(database, job_id) is JobState.QUEUED
    assert attempts(database, job_id) == []


def test_job_is_requeued_if_no_thread_can_start(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def fail_for_jobs(thread: threading.Thread) -> None:
        if thread.name.startswith("job-") and not refused.is_set():
            refused.set()
            raise RuntimeError("can't start new thread")
        start(thread)

    refused = threading.Event()
    monkeypatch.setattr(threading.Thread, "start", fail_for_jobs)
    job_id = add_job(database)
    make()
    wait_until(lambda: get_state(database, job_id) is JobState.SUCCEEDED)
    assert [each.outcome for each in attempts(database, job_id)] == ["preempted", "succeeded"]
    assert get_job(database, job_id).failures_counted == 0


def test_poller_survives_errors(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def fail(*_: object, **__: object) -> None:
        failed.set()
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("app.queue.leases.claim_job", fail)
        _, slots = make()
        assert failed.wait(10)
    job_id = add_job(database)
    wait_until(lambda: get_state(database, job_id) is JobState.SUCCEEDED)
    assert slots.wait_idle(10)


def test_outage_is_logged_at_start_and_end(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[bool] = []

    def away(*_: object, **__: object) -> None:
        tries.append(True)
        raise OperationalError("UPDATE", {}, Exception("the connection is gone"))

    with structlog.testing.capture_logs() as logs:
        with monkeypatch.context() as patch:
            patch.setattr("app.queue.leases.claim_job", away)
            make()
            wait_until(lambda: len(tries) > 2)
        wait_until(lambda: len(logs) > 1)
    lines = ["the database is unreachable", "the database is reachable again"]
    assert [line["event"] for line in logs] == lines
