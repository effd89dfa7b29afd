"""Jobs that wait are told of again, and not for ever."""

from app.db.clock import now
from app.db.engines import Database
from app.jobs import reminders
from app.jobs.states import JobState, Lane
from tests.job_rows import add_job, change, events, give_back, job, take


def due(database: Database) -> list[tuple[object, Lane]]:
    with database.write() as session:
        found = reminders.take_due(session, hint_seconds=30)
        session.commit()
    return list(found)


def test_a_hint_is_repeated_after_twice_the_time_each_time(database: Database) -> None:
    job_id = add_job(database, lane=Lane.ANY, dispatched_at=now())
    assert due(database) == []
    for count, pause in enumerate((30, 60, 120)):
        change(database, job_id, dispatched_at=now() - pause + 5)
        assert due(database) == [], count
        change(database, job_id, dispatched_at=now() - pause - 1)
        assert due(database) == [(job_id, Lane.ANY)]
    change(database, job_id, dispatch_count=60, dispatched_at=now() - 595)
    assert due(database) == []
    change(database, job_id, dispatched_at=now() - 601)
    assert due(database) == [(job_id, Lane.ANY)]


def test_a_job_that_came_back_is_told_of_once_it_is_due(database: Database) -> None:
    job_id = add_job(database, dispatched_at=now(), dispatch_count=3)
    lease = take(database).lease
    assert due(database) == []
    give_back(database, lease)
    change(database, job_id, run_after=now() + 60)
    assert due(database) == []
    change(database, job_id, run_after=now())
    assert due(database) == [(job_id, Lane.CPU)]


def test_a_job_that_waited_too_long_fails(database: Database) -> None:
    old = add_job(database, run_after=now() - 100)
    young = add_job(database)
    with database.write() as session:
        assert reminders.fail_overdue(session, queue_seconds=50) == [old]
        session.commit()
    row = job(database, old)
    assert (row.state, row.error_code) == (JobState.FAILED, "queue_timeout")
    assert row.finished_at is not None
    assert events(database, old)[-1].data == {"code": "queue_timeout"}
    assert job(database, young).state == JobState.QUEUED
