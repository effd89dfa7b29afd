"""What dead workers leave behind is put right."""

import json
import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from app.db.clock import now
from app.db.engines import Database
from app.jobs import ownership, presence
from app.jobs.leases import Claimed, Owner
from app.jobs.states import JobState, Lane, Outcome
from app.jobs.tables import Worker
from app.resources import Resources
from app.settings import Settings
from tests.job_rows import add_job, attempts, change, job, state
from worker import identity, workplace
from worker.reconciler import Reconciler

ME = identity.this_worker()
DEAD = replace(ME, id="dead", pid_start=ME.pid_start - 1)  # our number, but another process
ELSEWHERE = replace(DEAD, id="elsewhere", host="another-machine")


@pytest.fixture
def reconciler(resources: Resources) -> Reconciler:
    return Reconciler(resources, ME, draining=threading.Event())


def claim(database: Database, owner: Owner) -> Claimed:
    with database.write() as session:
        presence.announce(session, owner, draining=False)
        claimed = ownership.claim(
            session, owner=owner, lane=Lane.CPU, device="cpu", lease_seconds=60
        )
        session.commit()
    assert claimed is not None
    return claimed


def test_a_dead_worker_of_this_machine_loses_its_job_at_once(
    database: Database, reconciler: Reconciler
) -> None:
    job_id = add_job(database)
    claim(database, DEAD)
    reconciler.tick()
    row = job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 1)
    assert attempts(database, job_id)[0].outcome == Outcome.LOST


def test_a_cancel_that_a_dead_worker_never_saw_is_done(
    database: Database, reconciler: Reconciler
) -> None:
    job_id = add_job(database)
    claim(database, DEAD)
    change(database, job_id, cancel_requested_at=now())
    reconciler.tick()
    assert state(database, job_id) is JobState.CANCELLED


@pytest.mark.parametrize("owner", [ME, ELSEWHERE])
def test_a_worker_that_lives_or_is_not_ours_to_judge_keeps_its_job(
    database: Database, reconciler: Reconciler, owner: Owner
) -> None:
    job_id = add_job(database)
    claim(database, owner)
    reconciler.tick()
    assert state(database, job_id) is JobState.RUNNING


def test_a_lease_that_ran_out_is_taken_back_after_one_healthy_lease(
    resources: Resources, database: Database
) -> None:
    patient = Reconciler(resources, ME, draining=threading.Event())
    job_id = add_job(database)
    claim(database, ELSEWHERE)
    change(database, job_id, lease_expires_at=now() - 1)
    patient.tick()
    assert state(database, job_id) is JobState.RUNNING  # it may only be late, as after an outage
    patient._healthy_since -= resources.settings.lease_seconds
    patient.tick()
    assert state(database, job_id) is JobState.QUEUED


def test_a_jump_of_the_clock_gives_every_lease_time_again(
    resources: Resources, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    reconciler = Reconciler(resources, ME, draining=threading.Event())
    reconciler.tick()
    reconciler._healthy_since -= 1000
    monkeypatch.setattr("worker.reconciler.presence.announce", lambda *_, **__: 1e12)
    job_id = add_job(database)
    claim_late(database, job_id)
    reconciler.tick()
    assert state(database, job_id) is JobState.RUNNING


def claim_late(database: Database, job_id: UUID) -> None:
    with database.write() as session:
        ownership.claim(session, owner=ELSEWHERE, lane=Lane.CPU, device="cpu", lease_seconds=60)
        session.commit()
    change(database, job_id, lease_expires_at=now() - 1)


def test_what_still_trains_for_an_attempt_that_is_over_is_killed(
    settings: Settings, database: Database, reconciler: Reconciler
) -> None:
    job_id = add_job(database)
    claim(database, DEAD)
    orphan = subprocess.Popen(["/bin/sleep", "300"], start_new_session=True)
    directory = place_of(settings, job_id, attempt=1)
    (directory / "child.json").write_text(json.dumps(identity.process(orphan.pid)))
    reconciler.tick()  # takes the job back
    reconciler.tick()  # and finds an attempt that is over
    assert orphan.wait(10) == -9
    assert not directory.parent.exists()


def test_the_directory_of_a_running_attempt_is_left_alone(
    settings: Settings, database: Database, reconciler: Reconciler
) -> None:
    job_id = add_job(database)
    claim(database, ME)
    running = place_of(settings, job_id, attempt=1)
    (running / "child.json").write_text(json.dumps(identity.process(os.getpid())))
    over = [place_of(settings, job_id, attempt=2), place_of(settings, UUID(int=5), attempt=1)]
    (over[0] / "child.json").write_text("half a")
    strange = settings.work_dir / "jobs" / "notes" / "a1"
    strange.mkdir(parents=True)
    reconciler.tick()
    assert running.is_dir()
    assert strange.is_dir()
    assert not any(directory.exists() for directory in over)


def place_of(settings: Settings, job_id: UUID, *, attempt: int) -> Path:
    directory = workplace.place(settings, job_id, attempt).directory
    directory.mkdir(parents=True)
    return directory


def test_workers_are_listed_while_they_live_and_forgotten_long_after(
    database: Database, reconciler: Reconciler
) -> None:
    holding = add_job(database)
    claim(database, replace(ELSEWHERE, id="holding"))
    with database.write() as session:
        session.merge(_worker("silent"))
        session.merge(_worker("holding"))
        session.commit()
    reconciler.tick()
    with database.read() as session:
        assert set(session.scalars(select(Worker.id))) == {ME.id, "holding"}
    assert state(database, holding) is JobState.RUNNING


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
