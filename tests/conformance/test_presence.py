"""What a reconciler sees of the workers."""

from dataclasses import replace
from math import inf

import pytest
from sqlalchemy import select, update

from app.database.clock import now
from app.database.engines import Database
from app.queue import heartbeats
from app.queue.fencing import Held, Owner
from app.queue.tables import Worker
from tests.job_rows import ALICE, BOB, add_job, take


def announce(database: Database, owner: Owner) -> None:
    with database.write() as session:
        heartbeats.announce(session, owner, draining=False, devices=[])
        session.commit()


def running(database: Database) -> list[Held]:
    with database.read() as session:
        return heartbeats.running(session)


def test_a_running_job_tells_how_long_its_worker_has_been_silent(database: Database) -> None:
    job_id = add_job(database)
    take(database)
    announce(database, ALICE)
    with database.write() as session:
        session.execute(update(Worker).values(seen_at=now() - 100))
        session.commit()
    (held,) = running(database)
    assert (held.job_id, held.attempt, held.owner, held.overdue) == (job_id, 1, ALICE, False)
    assert held.silent_seconds == pytest.approx(100, abs=20)
    announce(database, ALICE)
    assert running(database)[0].silent_seconds < 20


def test_who_leaves_is_forgotten_unless_a_job_is_left_behind(database: Database) -> None:
    add_job(database)
    take(database)
    for owner in (ALICE, BOB):
        announce(database, owner)
        with database.write() as session:
            heartbeats.forget(session, silent_seconds=60, left=owner)
            session.commit()
    with database.read() as session:
        assert session.scalars(select(Worker.id)).all() == [ALICE.id]


def test_a_worker_without_a_row_was_never_heard_of(database: Database) -> None:
    add_job(database)
    take(database, BOB)
    (held,) = running(database)
    assert (held.owner, held.silent_seconds) == (None, inf)


def test_a_machine_may_be_up_for_years(database: Database) -> None:
    old = replace(ALICE, pid_start=2**31)  # 248 days at 100 ticks a second
    add_job(database)
    take(database, old)
    announce(database, old)
    assert running(database)[0].owner == old
