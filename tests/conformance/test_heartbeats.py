"""What the reconciler knows about the workers."""

from dataclasses import replace
from math import inf
from typing import Any

import pytest
from sqlalchemy import select, update

from app.database.base import now
from app.database.engines import Database
from app.queue import heartbeats
from app.queue.enums import DeviceClass
from app.queue.fencing import RunningJob, WorkerIdentity
from app.queue.tables import Worker
from tests.job_rows import ALICE, BOB, add_job, claim_next

CAROL = replace(ALICE, id="carol", pid=33)


def beat(database: Database, owner: WorkerIdentity) -> None:
    with database.write() as session:
        heartbeats.record_heartbeat(session, owner, draining=False, devices=[])


def running(database: Database) -> list[RunningJob]:
    with database.read() as session:
        return heartbeats.list_running_jobs(session)


def test_a_running_job_shows_the_time_since_its_workers_heartbeat(database: Database) -> None:
    job_id = add_job(database)
    claim_next(database)
    beat(database, ALICE)
    with database.write() as session:
        session.execute(update(Worker).values(seen_at=now() - 100))
    (running_job,) = running(database)
    assert (
        running_job.job_id,
        running_job.attempt,
        running_job.owner,
        running_job.lease_expired,
    ) == (job_id, 1, ALICE, False)
    assert running_job.seconds_since_heartbeat == pytest.approx(100, abs=20)
    beat(database, ALICE)
    assert running(database)[0].seconds_since_heartbeat < 20


def test_a_stopped_worker_is_deleted_unless_it_owns_a_job(database: Database) -> None:
    add_job(database)
    claim_next(database)
    for owner in (ALICE, BOB):
        beat(database, owner)
        with database.write() as session:
            heartbeats.delete_stale_workers(session, stale_after_seconds=60, stopped=owner)
    with database.read() as session:
        assert session.scalars(select(Worker.id)).all() == [ALICE.id]


def test_only_silent_and_stopped_workers_are_deleted(database: Database) -> None:
    add_job(database)  # a queued job has no worker
    for owner in (ALICE, BOB, CAROL):
        beat(database, owner)
    with database.write() as session:
        session.execute(update(Worker).where(Worker.id == ALICE.id).values(seen_at=now() - 70))
        heartbeats.delete_stale_workers(session, stale_after_seconds=80)
        assert len(session.scalars(select(Worker.id)).all()) == 3
        heartbeats.delete_stale_workers(session, stale_after_seconds=60, stopped=BOB)
        assert session.scalars(select(Worker.id)).all() == [CAROL.id]


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({"draining": False}, True),
        ({"draining": True}, False),
        ({"seen_at": now() - 70}, False),
        ({"devices": ["cuda:0", "cuda:1"]}, False),
        ({"devices": ["cuda:0", "cpu"]}, True),
        ({"devices": []}, False),
    ],
)
def test_only_a_live_worker_with_such_devices_takes_the_jobs(
    database: Database, changes: dict[str, Any], counts: bool
) -> None:
    for owner in (ALICE, BOB):
        with database.write() as session:
            heartbeats.record_heartbeat(session, owner, draining=False, devices=["cpu"])
    with database.write() as session:
        session.execute(update(Worker).where(Worker.id == BOB.id).values(**changes))
        assert counts == heartbeats.has_other_live_worker(
            session, DeviceClass.CPU, exclude=ALICE, lease_seconds=60
        )
        takes_any_jobs = not changes.get("draining") and "seen_at" not in changes
        slots = 1 + len(changes.get("devices", ["cpu"])) * takes_any_jobs
        assert heartbeats.count_worker_slots(session, lease_seconds=60) == slots


def test_a_worker_without_a_row_never_sent_a_heartbeat(database: Database) -> None:
    add_job(database)
    claim_next(database, BOB)
    (running_job,) = running(database)
    assert (running_job.owner, running_job.seconds_since_heartbeat) == (None, inf)


def test_a_host_may_be_up_for_years(database: Database) -> None:
    old = replace(ALICE, pid_start=2**31)  # 248 days at 100 ticks a second
    add_job(database)
    claim_next(database, old)
    beat(database, old)
    assert running(database)[0].owner == old
