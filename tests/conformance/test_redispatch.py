"""Waiting jobs are dispatched again, and time out in the end."""

import pytest

from app.database.base import now
from app.database.engines import Database
from app.queue import dispatch, leases
from app.queue.dispatch import JobTask
from app.queue.enums import DeviceClass, JobState
from app.queue.transitions import InfrastructureUnavailable
from tests.job_rows import add_job, claim_next, events, get_job, preempt, update_job

DAY = 24 * 3600


def due(database: Database) -> list[JobTask]:
    with database.write() as session:
        return dispatch.take_due_for_dispatch(session, redispatch_seconds=30)


def test_the_interval_between_tasks_doubles(database: Database) -> None:
    job_id = add_job(database, device_class=DeviceClass.ANY, dispatched_at=now())
    assert due(database) == []
    for count, pause in enumerate((30, 60, 120)):
        update_job(database, job_id, dispatched_at=now() - pause + 5)
        assert due(database) == [], count
        update_job(database, job_id, dispatched_at=now() - pause - 1)
        assert due(database) == [JobTask(job_id, DeviceClass.ANY, 6)]
    update_job(database, job_id, dispatch_count=60, dispatched_at=now() - DAY + 5)
    assert due(database) == []
    update_job(database, job_id, dispatched_at=now() - DAY - 1)
    assert due(database) == [JobTask(job_id, DeviceClass.ANY, 6)]


def test_a_requeued_job_is_dispatched_once_it_is_due(database: Database) -> None:
    job_id = add_job(database, dispatched_at=now(), dispatch_count=3)
    lease = claim_next(database).lease
    assert due(database) == []
    preempt(database, lease)
    update_job(database, job_id, run_after=now() + 60)
    assert due(database) == []
    update_job(database, job_id, run_after=now())
    assert due(database) == [JobTask(job_id, DeviceClass.CPU, 3)], "before the others"


def test_a_round_dispatches_only_what_the_notifier_can_hold(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MAX_DISPATCHED", 2)
    old, young, urgent = (add_job(database, priority=priority) for priority in (0, 0, 1))
    assert [task.job_id for task in due(database)] == [urgent, old], "in claim order"
    assert [task.job_id for task in due(database)] == [young]
    assert due(database) == []


def test_a_job_that_does_not_wait_takes_nobodys_place(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MAX_DISPATCHED", 1)
    add_job(database, priority=2)
    claim_next(database)
    add_job(database, priority=1, pause_requested_at=1.0)
    add_job(database, priority=1, run_after=now() + 60)
    waits = add_job(database)
    assert [task.job_id for task in due(database)] == [waits]


def test_a_job_that_waited_too_long_fails(database: Database) -> None:
    waiting = {"waiting_since": 1.0, "waiting_code": "hub_unavailable", "waiting_message": "Away."}
    old = add_job(database, run_after=now() - 2_592_100, **waiting)
    young = add_job(database)
    with database.write() as session:
        assert dispatch.fail_queue_timeouts(session, queue_seconds=2.592e6) == [old]
    row = get_job(database, old)
    assert (row.state, row.error_code) == (JobState.FAILED, "queue_timeout")
    assert (row.waiting_code, row.waiting_since, row.waiting_message) == (None, None, None)
    assert row.finished_at is not None
    (event,) = events(database, old)
    assert (event.seq, event.data) == (1, {"code": "queue_timeout"})
    assert row.stream_seq == 1
    assert row.error_message == "Waited in the queue for over 2,592,000 s."
    assert get_job(database, young).state == JobState.QUEUED


def test_a_storage_outage_is_shown_and_does_not_count_as_queue_time(database: Database) -> None:
    waits = add_job(database, run_after=now() - 100)
    later, other = (
        add_job(database, run_after=now() + 100),
        add_job(database, device_class=DeviceClass.GPU),
    )
    with database.write() as session:
        for message in ("The disk is full.", "The store is away."):  # the first one stays
            dispatch.mark_waiting_for_storage(
                session, [DeviceClass.CPU, DeviceClass.ANY], message=message
            )
        assert dispatch.fail_queue_timeouts(session, queue_seconds=50) == []
    row = get_job(database, waits)
    assert (row.state, row.waiting_code) == (JobState.QUEUED, "storage_unavailable")
    assert row.waiting_message == "The disk is full."
    assert {get_job(database, each).waiting_code for each in (later, other)} == {None}
    with database.write() as session:
        dispatch.clear_waiting_for_storage(session, [DeviceClass.CPU, DeviceClass.ANY])
        assert dispatch.fail_queue_timeouts(session, queue_seconds=50) == []
    row = get_job(database, waits)
    assert (row.waiting_code, row.waiting_since) == (None, None)
    assert claim_next(database).lease.job_id == waits


def test_an_outage_in_the_jobs_own_attempt_is_shown_until_progress(database: Database) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    with database.write() as session:
        leases.finish_attempt(
            session, lease, InfrastructureUnavailable("storage_unavailable", "Full.", 10)
        )
        dispatch.clear_waiting_for_storage(session, [DeviceClass.CPU])
    assert get_job(database, job_id).waiting_message == "Full."


def test_after_a_clock_step_queued_jobs_are_due_and_others_unchanged(database: Database) -> None:
    running = add_job(database)
    claim_next(database)
    queued = add_job(database)
    for job_id in (running, queued):
        update_job(database, job_id, run_after=now() + 7200)
    before = {job_id: get_job(database, job_id).run_after for job_id in (running, queued)}
    with database.write() as session:
        dispatch.make_all_queued_jobs_due(session)
    assert get_job(database, running).run_after == before[running]
    assert get_job(database, queued).run_after < before[queued] - 7000
