"""What an owner may write, and what one that lost the job may not."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from app.database.base import new_id
from app.database.clock import now
from app.database.engines import Database
from app.queue import leases
from app.queue.fencing import Beat, Lease
from app.queue.transitions import Cancelled, Ending, Failed, Preempted, Retry, Succeeded
from tests.job_rows import BOB, add_job, change, everything, give_back, job, take


def beat(database: Database, lease: Lease, **values: int) -> Beat | None:
    with database.write() as session:
        answer = leases.beat(session, lease, **{"step": 0, **values})
        session.commit()
        return answer


def test_a_beat_renews_the_lease_and_stores_the_step(database: Database) -> None:
    job_id = add_job(database)
    lease = take(database).lease
    change(database, job_id, lease_expires_at=now() + 1)
    assert beat(database, lease, step=4, total_steps=9) == Beat(False, first_seq=2)
    row = job(database, job_id)
    assert (row.step, row.total_steps) == (4, 9)
    assert row.lease_expires_at is not None
    assert row.started_at is not None
    assert row.lease_expires_at > row.started_at + 50


def test_the_steps_in_all_stand_until_the_next_attempt_tells_its_own(database: Database) -> None:
    job_id = add_job(database)
    lease = take(database).lease
    beat(database, lease, step=4, total_steps=9)
    give_back(database, lease)
    lease = take(database).lease
    beat(database, lease)
    assert job(database, job_id).total_steps == 9
    beat(database, lease, total_steps=12)
    assert job(database, job_id).total_steps == 12


def test_a_beat_reserves_numbers_that_no_other_gets(database: Database) -> None:
    job_id = add_job(database)
    lease = take(database).lease  # 1 is the event of the claim
    assert beat(database, lease, reserve=3) == Beat(False, first_seq=2)
    assert beat(database, lease, reserve=2) == Beat(False, first_seq=5)
    assert job(database, job_id).stream_seq == 6


def test_a_beat_tells_that_the_job_is_to_be_cancelled(database: Database) -> None:
    job_id = add_job(database)
    lease = take(database).lease
    change(database, job_id, cancel_requested_at=now())
    answer = beat(database, lease)
    assert answer is not None
    assert answer.cancel_requested


def test_an_owner_that_was_late_keeps_a_job_that_nobody_took(database: Database) -> None:
    job_id = add_job(database)
    lease = take(database).lease
    change(database, job_id, lease_expires_at=now() - 100)
    assert beat(database, lease) is not None


def test_the_first_attempt_can_fix_the_spec(database: Database) -> None:
    job_id = add_job(database)
    lease = take(database).lease
    with database.write() as session:
        assert leases.fix_spec(session, lease, {"runtime": {"threads": 2}})
        session.commit()
    assert job(database, job_id).spec == {"runtime": {"threads": 2}}


ENDINGS: list[Ending] = [
    Succeeded(artifact_id=new_id(), summary={}),
    Failed("some_code", "Something."),
    Cancelled(),
    Preempted(),
    Retry("crashed", "It crashed.", 10),
]


def given_back(database: Database) -> Lease:
    """A lease on a job that is in the queue again."""
    lease = take(database).lease
    give_back(database, lease)
    return lease


def taken_again(database: Database) -> Lease:
    """A lease on an attempt after which the same worker began the next one."""
    lease = given_back(database)
    assert take(database).lease == replace(lease, attempt=2)
    return lease


def somebody_elses(database: Database) -> Lease:
    """The right attempt in the wrong hands."""
    return replace(take(database).lease, worker=BOB.id)


@pytest.mark.parametrize("lose", [given_back, taken_again, somebody_elses])
def test_who_lost_the_job_changes_nothing(
    database: Database, lose: Callable[[Database], Lease]
) -> None:
    add_job(database)
    lost = lose(database)
    before = everything(database)
    assert beat(database, lost, step=99, reserve=5) is None
    with database.write() as session:
        assert not any(leases.finish(session, lost, ending) for ending in ENDINGS)
        assert not leases.fix_spec(session, lost, {})
        session.commit()
    assert everything(database) == before
