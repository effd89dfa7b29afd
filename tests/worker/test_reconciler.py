"""The jobs, processes, and directories of dead workers are recovered."""

import json
import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

import worker.reconciler
from app.database.base import now
from app.database.engines import Database
from app.drift.tables import DriftClaim
from app.queue import dispatch, heartbeats, leases
from app.queue.enums import AttemptOutcome, DeviceClass, JobState
from app.queue.fencing import ClaimedJob, WorkerIdentity
from app.queue.tables import MetricPoint, Worker
from app.queue.transitions import STORAGE_UNAVAILABLE
from app.registry.tables import RegisteredModel
from app.resources import Resources
from app.settings import Settings
from app.webhooks.repository import list_due_endpoint_ids
from tests.clock import Clock
from tests.job_rows import add_job, attempts, get_job, get_state, points, update_job
from tests.retraining_rows import add_run, all_runs
from tests.waiting import wait_until
from tests.webhook_rows import create_webhook, deliveries, send_test_event, update_delivery
from worker import process_identity, workdir
from worker.host_health import HostHealthChecker
from worker.reconciler import Reconciler

ME = process_identity.current_worker()
DEAD = replace(ME, id="dead", pid_start=ME.pid_start - 1)  # our number, but another process
ELSEWHERE = replace(DEAD, id="elsewhere", host="another-machine")


@pytest.fixture
def reconciler(resources: Resources) -> Reconciler:
    return Reconciler(
        resources,
        ME,
        draining=threading.Event(),
        devices=[],
        host_health=HostHealthChecker(resources),
    )


def claim(database: Database, owner: WorkerIdentity) -> ClaimedJob:
    with database.write() as session:
        heartbeats.record_heartbeat(session, owner, draining=False, devices=[])
        claimed = leases.claim_job(
            session, owner=owner, device_class=DeviceClass.CPU, device="cpu", lease_seconds=60
        )
    assert claimed is not None
    return claimed


def test_a_dead_worker_of_this_machine_loses_its_job_at_once(
    database: Database, reconciler: Reconciler
) -> None:
    job_id = add_job(database)
    claim(database, DEAD)
    reconciler.run_once()
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 1)
    assert attempts(database, job_id)[0].outcome == AttemptOutcome.LOST


def test_cancel_of_a_dead_workers_job_is_completed(
    database: Database, reconciler: Reconciler
) -> None:
    job_id = add_job(database)
    claim(database, DEAD)
    update_job(database, job_id, cancel_requested_at=now())
    reconciler.run_once()
    assert get_state(database, job_id) is JobState.CANCELLED


def test_curves_are_thinned_shortly_after_the_end_of_a_job(
    database: Database, reconciler: Reconciler
) -> None:
    point = {"attempt": 1, "split": "train", "value": 1.0}
    ended, just_ended, running = (
        add_job(database, **changes)
        for changes in (
            {"state": JobState.SUCCEEDED, "finished_at": now() - 10},
            {"state": JobState.SUCCEEDED, "finished_at": now()},
            {"state": JobState.RUNNING, "worker": "w", "lease_expires_at": now() + 60},
        )
    )
    with database.write() as session:
        for job_id in (ended, just_ended, running):
            for seq, name in enumerate(("loss", "reviews_per_second"), start=1):
                session.add(MetricPoint(job_id=job_id, seq=seq, name=name, step=1, **point))
    reconciler.run_once()
    assert [each.name for each in points(database, ended)] == ["loss"]
    for job_id in (just_ended, running):  # its event streams may not have sent all of them yet
        assert len(points(database, job_id)) == 2


@pytest.mark.parametrize("owner", [ME, ELSEWHERE])
def test_live_or_unknown_worker_keeps_its_job(
    database: Database, reconciler: Reconciler, owner: WorkerIdentity
) -> None:
    job_id = add_job(database)
    claim(database, owner)
    reconciler.run_once()
    assert get_state(database, job_id) is JobState.RUNNING


def test_overdue_lease_expires_after_one_healthy_lease_period(
    resources: Resources, database: Database
) -> None:
    patient = Reconciler(
        resources,
        ME,
        draining=threading.Event(),
        devices=[],
        host_health=HostHealthChecker(resources),
    )
    job_id = add_job(database)
    claim(database, ELSEWHERE)
    update_job(database, job_id, lease_expires_at=now() - 1)
    patient.run_once()
    assert (
        get_state(database, job_id) is JobState.RUNNING
    )  # it may only be late, as after an outage
    patient._healthy_since -= resources.settings.lease_seconds
    patient.run_once()
    assert get_state(database, job_id) is JobState.QUEUED


def test_clock_jump_extends_all_leases(
    resources: Resources, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciler = Reconciler(
        resources,
        ME,
        draining=threading.Event(),
        devices=[],
        host_health=HostHealthChecker(resources),
    )
    reconciler.run_once()
    reconciler._healthy_since -= 1000
    monkeypatch.setattr("worker.reconciler.read_clock", lambda _: 1e12)
    job_id = add_job(database)
    claim_late(database, job_id)
    reconciler.run_once()
    assert get_state(database, job_id) is JobState.RUNNING


def test_clock_jump_does_not_count_as_queue_time(
    resources: Resources, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = replace(
        resources, settings=resources.settings.model_copy(update={"max_queue_seconds": 50.0})
    )
    reconciler = Reconciler(
        limited,
        ME,
        draining=threading.Event(),
        devices=["cpu"],
        host_health=HostHealthChecker(limited),
    )
    reconciler.run_once()
    job_id, marked = (add_job(database, run_after=now() - 3000) for _ in range(2))
    unavailable = {"waiting_code": STORAGE_UNAVAILABLE, "waiting_message": "The disk is full."}
    update_job(database, marked, device_class=DeviceClass.GPU, waiting_since=now(), **unavailable)
    monkeypatch.setattr("worker.reconciler.read_clock", lambda _: 1e9 + clock.now + 3000)
    reconciler.run_once()
    assert get_state(database, job_id) is JobState.QUEUED
    with database.write() as session:
        dispatch.clear_waiting_for_storage(session, [DeviceClass.GPU])
    assert get_job(database, marked).waiting_code is None


def test_clock_jump_makes_waiting_webhook_deliveries_due(
    resources: Resources, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were to be sent at a time that may be hours away on the corrected clock."""
    reconciler = Reconciler(
        resources,
        ME,
        draining=threading.Event(),
        devices=[],
        host_health=HostHealthChecker(resources),
    )
    reconciler.run_once()
    send_test_event(database, create_webhook(resources, "https://example.com/").id)
    update_delivery(database, next_attempt_at=now() + 3000)
    reconciler.run_once()
    with database.read() as session:
        assert not list_due_endpoint_ids(session)
    monkeypatch.setattr("worker.reconciler.read_clock", lambda _: 1e9 + clock.now - 3600)
    reconciler.run_once()
    with database.read() as session:
        assert list_due_endpoint_ids(session)


def test_clock_jump_ends_claims_that_would_last_as_long_as_the_jump(
    resources: Resources, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciler = Reconciler(
        resources,
        ME,
        draining=threading.Event(),
        devices=[],
        host_health=HostHealthChecker(resources),
    )
    reconciler.run_once()
    hour, day = now() + 3600 + 500, now() + 86_400 + 3600
    send_test_event(database, create_webhook(resources, "https://example.com/").id)
    update_delivery(database, lease_expires_at=hour)
    with database.write() as session:
        session.add(RegisteredModel(name="sentiment"))
    add_run(database, state="collecting", new_number=None, finished_at=None, claimed_until=hour)
    failed = {"error_code": "data_unreadable", "error_message": "It is damaged."}
    times = {"claimed": now() + 600, "long": hour, "failed": now() + 86_000, "failed long": day}
    with database.write() as session:
        for model, until in times.items():
            error = failed if "failed" in model else {}
            session.add(DriftClaim(model=model, number=1, until=until, **error))

    def ended() -> tuple[bool, bool, set[str]]:
        with database.read() as session:
            claims = session.scalars(select(DriftClaim).where(DriftClaim.until <= now())).all()
        (delivery,), (run,) = deliveries(database), all_runs(database)
        return (
            delivery.lease_expires_at is None,
            run.claimed_until is None,
            {claim.model for claim in claims},
        )

    reconciler.run_once()
    assert ended() == (False, False, set())
    monkeypatch.setattr("worker.reconciler.read_clock", lambda _: 1e9 + clock.now - 3600)
    reconciler.run_once()
    assert ended() == (True, True, {"long", "failed long"})


def test_outage_is_logged_at_start_and_end(
    reconciler: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_: Session) -> None:
        raise OperationalError("COMMIT", {}, Exception("the connection is gone"))

    with structlog.testing.capture_logs() as logs:
        reconciler.run_once()
        with monkeypatch.context() as patch:
            patch.setattr(Session, "commit", away)
            for _ in range(3):
                reconciler.run_once()  # its second step does not reach the store
        reconciler.run_once()
        reconciler.run_once()
    lines = [line["event"] for line in logs]
    assert lines == ["the database is unreachable", "the database is reachable again"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Of this machine and, far ahead, of the database."""
    clock = Clock()
    monkeypatch.setattr("worker.reconciler.boot_clock", clock)
    monkeypatch.setattr("worker.reconciler.read_clock", lambda _: 1e9 + clock.now)
    return clock


@pytest.mark.parametrize(
    ("where", "name"),
    [(heartbeats, "record_heartbeat"), (worker.reconciler, "read_clock"), (Session, "commit")],
)
def test_slow_database_is_not_a_clock_jump(
    resources: Resources,
    database: Database,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    where: object,
    name: str,
) -> None:
    reconciler = Reconciler(
        resources,
        ME,
        draining=threading.Event(),
        devices=[],
        host_health=HostHealthChecker(resources),
    )
    reconciler.run_once()
    job_id = add_job(database, run_after=now() + 3000)
    due = get_job(database, job_id).run_after
    real = getattr(where, name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        clock.now += 100
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, slow)
        reconciler.run_once()
    reconciler.run_once()
    assert get_job(database, job_id).run_after == due


def test_suspend_extends_leases_and_queue_timeouts(
    resources: Resources, database: Database, clock: Clock
) -> None:
    reconciler = Reconciler(
        resources,
        ME,
        draining=threading.Event(),
        devices=[],
        host_health=HostHealthChecker(resources),
    )
    reconciler.run_once()
    reconciler._healthy_since -= 1000
    job_id = add_job(database)
    claim_late(database, job_id)
    waiting = add_job(database, run_after=now() + 3000)
    due = get_job(database, waiting).run_after
    clock.now += 3600
    reconciler.run_once()
    assert get_state(database, job_id) is JobState.RUNNING
    assert get_job(database, waiting).run_after == due


def test_silent_worker_of_another_boot_is_dead(resources: Resources, database: Database) -> None:
    """It ran here before a restart; or it is on another machine of the same name, and alive."""
    settings = resources.settings.model_copy(update={"reconcile_seconds": 10})
    reconciler = Reconciler(
        replace(resources, settings=settings),
        ME,
        draining=threading.Event(),
        devices=[],
        host_health=HostHealthChecker(resources),
    )
    job_id = add_job(database)
    owner = replace(ME, id="of another boot", boot_id="another/1")
    claim(database, owner)
    reconciler._healthy_since -= 1000
    reconciler.run_once()
    assert get_state(database, job_id) is JobState.RUNNING
    with database.write() as session:
        session.get_one(Worker, owner.id).seen_at -= 31
    reconciler._healthy_since += 1000  # as after an outage without heartbeats
    reconciler.run_once()
    assert get_state(database, job_id) is JobState.RUNNING
    reconciler._healthy_since -= 31
    reconciler.run_once()
    assert get_state(database, job_id) is JobState.QUEUED


def test_draining_worker_is_alive_until_it_exits(resources: Resources, database: Database) -> None:
    draining = threading.Event()
    draining.set()
    reconciler = Reconciler(
        resources, ME, draining=draining, devices=[], host_health=HostHealthChecker(resources)
    )
    thread = threading.Thread(target=reconciler.run)
    thread.start()

    def moments() -> set[float]:
        with database.read() as session:
            seen.update(session.scalars(select(Worker.seen_at)))
        return seen

    seen: set[float] = set()
    wait_until(lambda: len(moments()) > 2)
    reconciler.stop()
    thread.join(10)
    assert not thread.is_alive()
    with database.read() as session:
        assert session.scalars(select(Worker.seen_at)).all() == []


def claim_late(database: Database, job_id: UUID) -> None:
    with database.write() as session:
        leases.claim_job(
            session, owner=ELSEWHERE, device_class=DeviceClass.CPU, device="cpu", lease_seconds=60
        )
    update_job(database, job_id, lease_expires_at=now() - 1)


def test_process_of_a_finished_attempt_is_killed(
    settings: Settings, database: Database, reconciler: Reconciler
) -> None:
    job_id = add_job(database)
    claim(database, DEAD)
    orphan = subprocess.Popen(["/bin/sleep", "300"], start_new_session=True)
    directory = place_of(settings, job_id, attempt=1)
    (directory / "child.json").write_text(json.dumps(process_identity.identify(orphan.pid)))
    reconciler.run_once()
    assert get_state(database, job_id) is JobState.QUEUED
    assert orphan.wait(10) == -9
    assert not directory.exists()


def test_directory_of_a_running_attempt_is_kept(
    settings: Settings, database: Database, reconciler: Reconciler
) -> None:
    job_id = add_job(database)
    claim(database, ME)
    running = place_of(settings, job_id, attempt=1)
    (running / "child.json").write_text(json.dumps(process_identity.identify(os.getpid())))
    over = [place_of(settings, job_id, attempt=2), place_of(settings, UUID(int=5), attempt=1)]
    (over[0] / "child.json").write_text("half a")
    unrelated = settings.work_dir / "jobs" / "notes-a1"
    unrelated.mkdir(parents=True)
    reconciler.run_once()
    assert running.is_dir()
    assert unrelated.is_dir()
    assert not any(directory.exists() for directory in over)


def test_vanishing_directories_are_not_an_error(settings: Settings) -> None:
    job_id = UUID(int=5)
    for each in (1, 2):
        place_of(settings, job_id, attempt=each)
    found = workdir.list_attempt_dirs(settings)
    next(found)
    for each in (1, 2):
        workdir.attempt_dir(settings, job_id, each).remove()
    list(found)
    workdir.attempt_dir(settings, job_id, 3).path.mkdir()  # what it lies in is still there


def place_of(settings: Settings, job_id: UUID, *, attempt: int) -> Path:
    directory = workdir.attempt_dir(settings, job_id, attempt).path
    directory.mkdir(parents=True)
    return directory


def test_workers_are_listed_and_deleted_when_stale(
    database: Database, reconciler: Reconciler
) -> None:
    holding = add_job(database)
    claim(database, replace(ELSEWHERE, id="holding"))
    with database.write() as session:
        session.merge(_worker("silent"))
        session.merge(_worker("holding"))
    reconciler.run_once()
    with database.read() as session:
        assert set(session.scalars(select(Worker.id))) == {ME.id, "holding"}
    assert get_state(database, holding) is JobState.RUNNING


def _worker(name: str) -> Worker:
    owner = replace(ELSEWHERE, id=name)
    return Worker(
        id=owner.id,
        host=owner.host,
        boot_id=owner.boot_id,
        pid=owner.pid,
        pid_start=owner.pid_start,
        seen_at=1.0,
        draining=False,
    )


def test_database_outage_does_not_count_as_queue_time(
    resources: Resources, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = add_job(database, run_after=now() - 100)
    limited = replace(
        resources, settings=resources.settings.model_copy(update={"max_queue_seconds": 50.0})
    )
    reconciler = Reconciler(
        limited, ME, draining=threading.Event(), devices=[], host_health=HostHealthChecker(limited)
    )
    real = Session.commit

    def away(_: Session) -> None:
        raise OperationalError("COMMIT", {}, Exception("gone"))

    monkeypatch.setattr(Session, "commit", away)
    reconciler.run_once()
    monkeypatch.setattr(Session, "commit", real)
    reconciler.run_once()
    assert get_state(database, job_id) is JobState.QUEUED
    Reconciler(
        limited, ME, draining=threading.Event(), devices=[], host_health=HostHealthChecker(limited)
    ).run_once()  # saw no outage
    assert get_state(database, job_id) is JobState.FAILED
