"""Jobs that wait are told of again, and not for ever."""

from app.database.clock import now
from app.database.engines import Database
from app.queue import dispatch, leases
from app.queue.states import JobState, Lane
from app.queue.transitions import Waiting
from tests.job_rows import add_job, change, events, give_back, job, take


def due(database: Database) -> list[tuple[object, Lane]]:
    with database.write() as session:
        found = dispatch.take_due(session, hint_seconds=30)
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
        assert dispatch.fail_overdue(session, queue_seconds=50) == [old]
        session.commit()
    row = job(database, old)
    assert (row.state, row.error_code) == (JobState.FAILED, "queue_timeout")
    assert row.finished_at is not None
    assert events(database, old)[-1].data == {"code": "queue_timeout"}
    assert job(database, young).state == JobState.QUEUED


def test_an_outage_of_the_storage_is_shown_and_no_time_in_the_queue(database: Database) -> None:
    waits = add_job(database, run_after=now() - 100)
    later, other = add_job(database, run_after=now() + 100), add_job(database, lane=Lane.GPU)
    with database.write() as session:
        for message in ("The disk is full.", "The store is away."):  # the first one stays
            dispatch.note_trouble(session, [Lane.CPU, Lane.ANY], message=message)
        assert dispatch.fail_overdue(session, queue_seconds=50) == []
        session.commit()
    row = job(database, waits)
    assert (row.state, row.waiting_code) == (JobState.QUEUED, "storage_unavailable")
    assert row.waiting_message == "The disk is full."
    assert {job(database, each).waiting_code for each in (later, other)} == {None}
    with database.write() as session:
        dispatch.forget_trouble(session, [Lane.CPU, Lane.ANY])
        assert dispatch.fail_overdue(session, queue_seconds=50) == []
        session.commit()
    row = job(database, waits)
    assert (row.waiting_code, row.waiting_since) == (None, None)
    assert take(database).lease.job_id == waits


def test_what_a_job_has_met_itself_is_shown_until_it_goes_on(database: Database) -> None:
    job_id = add_job(database)
    lease = take(database).lease
    with database.write() as session:
        assert leases.finish(session, lease, Waiting("storage_unavailable", "Full.", 10))
        dispatch.forget_trouble(session, [Lane.CPU])
        session.commit()
    assert job(database, job_id).waiting_message == "Full."
