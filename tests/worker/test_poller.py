"""Jobs are claimed while there is room, and no longer once the worker drains."""

import threading
import time
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from uuid import UUID

import pytest
import structlog
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from app.database import clock
from app.database.engines import Database
from app.jobs import repository
from app.queue import dispatch, heartbeats
from app.queue.fencing import Claimed
from app.queue.states import JobState, Lane
from app.queue.tables import Worker
from app.resources import Resources
from tests.job_rows import ALICE, BOB, add_job, attempts, job, state
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from tests.worker.test_run_job import GOOD
from worker.devices import CPU, Device, Slot, Slots
from worker.host_health import HostCheck
from worker.poller import Poller
from worker.run_job import JobRunner
from worker.spawn import Warm

GPU = Device("cuda:0", "GPU-1")
NEVER = 3600.0  # seconds between two looks: only a bell helps


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

    def run(self, claimed: Claimed, slot: Slot, warm: Warm) -> None:  # noqa: ARG002
        assert self.gate.wait(30)


@pytest.fixture
def make(
    resources: Resources, draining: threading.Event, tmp_path: Path
) -> Iterator[Callable[..., tuple[Poller, Slots]]]:
    """A running poller."""
    made: list[tuple[Poller, threading.Thread, Slots]] = []

    def start(
        *devices: Device,
        cpu_count: int = 1,
        poll_seconds: float = 0.05,
        gate: threading.Event | None = None,
        **settings: object,
    ) -> tuple[Poller, Slots]:
        slots = Slots(devices or (CPU,), cpu_count=cpu_count, locks=tmp_path / "devices")
        settings |= {"poll_seconds": poll_seconds}
        patient = resources.settings.model_copy(update=settings)
        with_poll = Resources(
            settings=patient,
            database=resources.database,
            store=resources.store,
            queue=resources.queue,
        )
        scripted(*GOOD)
        host = HostCheck(with_poll)
        runner = JobRunner(with_poll, draining=draining, host=host)
        if gate is not None:
            runner = Held(resources, draining=draining)
            runner.gate = gate
        poller = Poller(with_poll, ALICE, runner, slots, draining=draining, host=host)
        thread = threading.Thread(target=poller.run)
        thread.start()
        made.append((poller, thread, slots))
        return poller, slots

    yield start
    draining.set()
    for poller, thread, slots in made:
        poller.wake()
        thread.join(10)
        assert slots.wait_idle(20)


Make = Callable[..., tuple[Poller, Slots]]


def running(database: Database, *jobs: UUID) -> list[UUID]:
    return [each for each in jobs if state(database, each) is JobState.RUNNING]


def test_a_job_that_waits_is_claimed_and_run(database: Database, make: Make) -> None:
    job_id = add_job(database)
    make()
    wait_until(lambda: state(database, job_id) is JobState.SUCCEEDED)
    assert attempts(database, job_id)[0].device == "cpu"


def test_one_bell_is_enough_for_a_job_that_comes_between_two_looks(
    database: Database, make: Make
) -> None:
    poller, _ = make(poll_seconds=NEVER)
    job_id = add_job(database)
    poller.wake()
    wait_until(lambda: state(database, job_id) is JobState.SUCCEEDED)


def test_each_free_slot_gets_a_job_and_the_next_one_waits_for_room(
    database: Database, make: Make, gate: threading.Event
) -> None:
    jobs = [add_job(database) for _ in range(3)]
    poller, _ = make(cpu_count=2, poll_seconds=NEVER, gate=gate)
    wait_until(lambda: len(running(database, *jobs)) == 2)
    poller.wake()
    time.sleep(0.2)
    assert len(running(database, *jobs)) == 2
    gate.set()
    wait_until(lambda: len(running(database, *jobs)) == 3, what="a job in the slot that came back")


def test_without_room_on_the_disk_jobs_are_left_to_others_as_long_as_there_are_any(
    database: Database, make: Make
) -> None:
    def announce(seen_at: float, devices: list[str], *, draining: bool = False) -> None:
        with database.write() as session:
            heartbeats.announce(session, BOB, draining=draining, devices=devices)
            session.flush()
            session.execute(update(Worker).values(seen_at=seen_at))
            session.commit()

    announce(NEVER + time.time(), ["cuda:0", "cpu"])
    job_id = add_job(database)
    with structlog.testing.capture_logs() as logs:
        make(min_free_bytes=2**60)
        time.sleep(0.5)  # ten looks
        assert state(database, job_id) is JobState.QUEUED
        assert attempts(database, job_id) == []
        announce(NEVER + time.time(), ["cuda:0"])  # of no use for this one
        wait_until(lambda: job(database, job_id).waiting_code == "storage_unavailable")
    told = [line for line in logs if line["event"] == "jobs are left to other workers"]
    assert [line["code"] for line in told] == ["disk_full"]
    assert attempts(database, job_id) == []
    with database.write() as session:  # as the reconciler of a worker that has room
        dispatch.forget_trouble(session, [Lane.CPU])
        session.commit()
    wait_until(lambda: job(database, job_id).waiting_code == "storage_unavailable", what="anew")


def test_an_outage_of_the_store_costs_one_attempt_however_long_it_is(
    resources: Resources,
    database: Database,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.storage.store.CHECK_SECONDS", 0.1)
    root = resources.settings.artifacts_dir
    for _ in range(2):  # the folder is there, and known
        resources.store.now()
    away = root.rename(root.with_name("away"))
    first, second = add_job(database, priority=1), add_job(database)
    make(retry_seconds=0, patience_seconds=0)
    wait_until(lambda: job(database, second).waiting_code == "storage_unavailable")
    time.sleep(1)  # twenty looks
    assert (len(attempts(database, first)), attempts(database, second)) == (1, [])
    assert {state(database, each) for each in (first, second)} == {JobState.QUEUED}
    away.rename(root)
    wait_until(lambda: state(database, second) is JobState.SUCCEEDED, what="the second job")
    assert state(database, first) is JobState.SUCCEEDED
    assert job(database, first).failures_counted == 0


def test_a_job_can_be_cancelled_while_it_waits_for_the_store(
    resources: Resources, database: Database, make: Make
) -> None:
    for _ in range(2):
        resources.store.now()
    root = resources.settings.artifacts_dir
    root.rename(root.with_name("away"))
    job_id = add_job(database)
    make()
    wait_until(lambda: job(database, job_id).waiting_code == "storage_unavailable")
    with database.write() as session:
        repository.request_cancel(session, job_id)
        session.commit()
    wait_until(lambda: state(database, job_id) is JobState.CANCELLED)


@pytest.mark.parametrize(
    ("age", "draining", "there"), [(0, False, True), (0, True, False), (61, False, False)]
)
def test_others_are_those_that_live_and_stay(
    database: Database, age: float, draining: bool, there: bool
) -> None:
    with database.write() as session:
        heartbeats.announce(session, BOB, draining=draining, devices=["cpu"])
        session.flush()
        session.execute(update(Worker).values(seen_at=clock.now() - age))
        session.commit()
    with database.read() as session:
        found = heartbeats.others(session, Lane.CPU, but=ALICE, lease_seconds=60)
        assert found is there
        assert not heartbeats.others(session, Lane.CPU, but=BOB, lease_seconds=60)


def test_each_device_takes_the_jobs_of_its_lane(
    database: Database, make: Make, gate: threading.Event
) -> None:
    cpu = [add_job(database, lane=Lane.CPU) for _ in range(2)]
    gpu = add_job(database, lane=Lane.GPU)
    make(CPU, GPU, gate=gate)
    wait_until(lambda: running(database, *cpu, gpu) == [cpu[0], gpu])
    assert [attempts(database, each)[0].device for each in (cpu[0], gpu)] == ["cpu", "cuda:0"]
    assert state(database, cpu[1]) is JobState.QUEUED


def test_a_job_for_any_device_stays_with_the_kind_that_takes_it(
    database: Database, make: Make, gate: threading.Event
) -> None:
    job_id = add_job(database, lane=Lane.ANY)
    make(GPU, gate=gate)
    wait_until(lambda: running(database, job_id))
    assert job(database, job_id).lane == Lane.GPU


def test_a_slot_that_becomes_free_in_a_drain_claims_nothing(
    resources: Resources, database: Database, draining: threading.Event, tmp_path: Path
) -> None:
    job_id = add_job(database)

    class LastSlot(Slots):
        """The drain begins while the poller takes it."""

        def take(self, *, but: Container[Lane] = ()) -> Slot | None:
            draining.set()
            return super().take(but=but)

    slots = LastSlot((CPU,), cpu_count=1, locks=tmp_path)
    scripted(*GOOD)
    runner = JobRunner(resources, draining=draining)
    Poller(resources, ALICE, runner, slots, draining=draining).run()
    assert slots.wait_idle(10)
    assert state(database, job_id) is JobState.QUEUED
    assert attempts(database, job_id) == []


def test_a_job_for_which_there_is_no_thread_waits_again_and_costs_no_slot(
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
    wait_until(lambda: state(database, job_id) is JobState.SUCCEEDED)
    assert [each.outcome for each in attempts(database, job_id)] == ["preempted", "succeeded"]
    assert job(database, job_id).failures_counted == 0


def test_a_poller_outlives_errors(
    database: Database, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def fail(*_: object, **__: object) -> None:
        failed.set()
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("app.queue.leases.claim", fail)
        _, slots = make()
        assert failed.wait(10)
    job_id = add_job(database)
    wait_until(lambda: state(database, job_id) is JobState.SUCCEEDED)
    assert slots.wait_idle(10)


def test_an_outage_is_told_when_it_begins_and_when_it_is_over(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[bool] = []

    def away(*_: object, **__: object) -> None:
        tries.append(True)
        raise OperationalError("UPDATE", {}, Exception("the connection is gone"))

    with structlog.testing.capture_logs() as logs:
        with monkeypatch.context() as patch:
            patch.setattr("app.queue.leases.claim", away)
            make()
            wait_until(lambda: len(tries) > 2)
        wait_until(lambda: len(logs) > 1)
    lines = ["the database does not answer", "the database answers again"]
    assert [line["event"] for line in logs] == lines
