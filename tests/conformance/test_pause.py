"""A paused job stays queued but out of line, and a pause costs a job nothing."""

from threading import Barrier, Thread
from uuid import UUID

import pytest

from app.database.base import now
from app.database.engines import Database
from app.jobs import repository
from app.queue import dispatch, leases
from app.queue.enums import AttemptOutcome, DeviceClass, JobState
from app.queue.fencing import LeaseLost
from app.queue.transitions import (
    AttemptResult,
    Cancelled,
    InfrastructureUnavailable,
    Paused,
    PermanentFailure,
    Preempted,
    RetryableFailure,
)
from tests.job_rows import (
    ALICE,
    BOB,
    add_job,
    attempts,
    claim_next,
    events,
    get_job,
    get_state,
    update_job,
)

CRASHED = RetryableFailure("crashed", "It crashed.", backoff_seconds=10)


def pause(database: Database, job_id: UUID) -> None:
    with database.write() as session:
        repository.request_pause(session, job_id)


def resume(database: Database, job_id: UUID) -> bool:
    with database.write() as session:
        return repository.request_resume(session, job_id)


def claim(database: Database, job_id: UUID | None = None) -> UUID | None:
    with database.write() as session:
        claimed = leases.claim_job(
            session,
            owner=ALICE,
            device_class=DeviceClass.CPU,
            device="cpu",
            lease_seconds=60,
            job_id=job_id,
        )
    return claimed.lease.job_id if claimed else None


def kinds(database: Database, job_id: UUID) -> list[str]:
    return [event.kind for event in events(database, job_id)]


def test_a_paused_job_is_not_claimed_before_it_is_resumed(database: Database) -> None:
    first, second = add_job(database, priority=1), add_job(database)
    pause(database, first)
    assert get_job(database, first).paused
    assert claim(database, first) is None
    assert claim(database) == second
    assert claim(database) is None
    assert resume(database, first)
    assert not get_job(database, first).paused
    assert claim(database) == first
    assert kinds(database, first) == ["paused", "resume_requested", "started"]


def test_a_second_pause_or_resume_changes_nothing(database: Database) -> None:
    job_id = add_job(database)
    pause(database, job_id)
    since = get_job(database, job_id).pause_requested_at
    pause(database, job_id)
    assert get_job(database, job_id).pause_requested_at == since
    assert resume(database, job_id)
    assert not resume(database, job_id)
    assert kinds(database, job_id) == ["paused", "resume_requested"]


def test_a_paused_job_is_neither_dispatched_nor_due(database: Database) -> None:
    paused = add_job(database, run_after=now() - 100)
    waits = add_job(database, run_after=now() - 100, dispatched_at=now())
    pause(database, paused)
    with database.write() as session:
        assert dispatch.take_due_for_dispatch(session, redispatch_seconds=30) == []
        dispatch.mark_waiting_for_storage(session, [DeviceClass.CPU], message="The disk is full.")
        repository_position = repository.next_queue_position(
            session, device_class=DeviceClass.CPU, priority=0
        )
        positions = repository.queue_positions(session, [paused, waits])
        dispatch.clear_waiting_for_storage(session, [DeviceClass.CPU])
    assert (positions, repository_position) == ({waits: 1}, 2)
    assert get_job(database, paused).waiting_code is None
    update_job(database, waits, run_after=now() - 100)
    with database.write() as session:
        assert dispatch.fail_queue_timeouts(session, queue_seconds=50) == [waits]
    assert get_state(database, paused) is JobState.QUEUED


def test_the_pause_counts_neither_as_queue_time_nor_as_an_outage(database: Database) -> None:
    job_id = add_job(
        database,
        run_after=now() - 100,
        waiting_code="hub_unavailable",
        waiting_message="The hub is away.",
        waiting_since=now() - 5000,
        dispatched_at=now() - 100,
        dispatch_count=7,
    )
    pause(database, job_id)
    assert resume(database, job_id)
    with database.write() as session:
        assert dispatch.fail_queue_timeouts(session, queue_seconds=50) == []
        assert dispatch.take_due_for_dispatch(session, redispatch_seconds=30) == [], "sent by now"
    row = get_job(database, job_id)
    assert (row.waiting_code, row.waiting_message, row.waiting_since) == (None, None, None)
    assert row.dispatch_count == 0
    assert claim_next(database).waited_seconds is None


def test_a_pause_does_not_shorten_the_delay_after_a_failure(database: Database) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    with database.write() as session:
        leases.finish_attempt(session, lease, CRASHED)
    due_at = get_job(database, job_id).run_after
    pause(database, job_id)
    resume(database, job_id)
    assert get_job(database, job_id).run_after == due_at > now_of(database)


def now_of(database: Database) -> float:
    with database.read() as session:
        return session.scalar(now().select()) or 0.0


def test_a_running_job_is_requeued_as_paused_without_a_failure(database: Database) -> None:
    job_id = add_job(database, failures_counted=2)
    lease = claim_next(database).lease
    pause(database, job_id)
    assert (get_state(database, job_id), get_job(database, job_id).paused) == ("running", False)
    with database.write() as session:
        leases.finish_attempt(session, lease, Paused())
    row = get_job(database, job_id)
    assert (row.paused, row.worker, row.failures_counted, row.finished_at) == (True, None, 2, None)
    (attempt,) = attempts(database, job_id)
    assert attempt.outcome == AttemptOutcome.PREEMPTED
    assert kinds(database, job_id) == ["started", "pause_requested", "paused"]
    assert claim(database) is None
    resume(database, job_id)
    assert claim_next(database).lease.attempt == 2


@pytest.mark.parametrize(
    ("result", "level", "code"),
    [
        (Preempted(), "info", "preempted"),
        (CRASHED, "warning", "crashed"),
        (InfrastructureUnavailable("storage_unavailable", "Full.", seconds=1), "warning", None),
    ],
)
def test_whatever_requeues_a_job_with_a_request_pauses_it(
    database: Database, result: AttemptResult, level: str, code: str | None
) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    pause(database, job_id)
    with database.write() as session:
        leases.finish_attempt(session, lease, result)
    assert get_job(database, job_id).paused
    event = events(database, job_id)[-1]
    assert (event.kind, event.level) == ("paused", level)
    assert event.data == {"code": code or "storage_unavailable"}
    assert event.message.endswith("The job is paused.")


@pytest.mark.parametrize("dead", [True, False])
def test_the_job_of_a_lost_worker_stays_paused(database: Database, dead: bool) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    pause(database, job_id)
    if not dead:
        update_job(database, job_id, lease_expires_at=now() - 1)
    with database.write() as session:
        assert leases.expire_attempt(
            session,
            job_id,
            attempt=1,
            failure=CRASHED,
            max_failures=5,
            dead_worker=lease.worker if dead else None,
        )
    row = get_job(database, job_id)
    assert (row.paused, row.failures_counted) == (True, 1)
    with pytest.raises(LeaseLost), database.write() as session:
        leases.finish_attempt(session, lease, Paused())


def test_a_pause_that_is_withdrawn_leaves_the_job_running(database: Database) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    pause(database, job_id)
    assert not resume(database, job_id), "nobody else can claim it"
    with database.write() as session:
        renewal = leases.renew_lease(session, lease, step=1)
    assert renewal is not None
    assert not renewal.pause_requested
    assert kinds(database, job_id) == ["started", "pause_requested", "resume_requested"]


def test_a_job_that_stopped_for_a_withdrawn_pause_is_back_in_line(database: Database) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    pause(database, job_id)
    resume(database, job_id)
    with database.write() as session:
        leases.finish_attempt(session, lease, Paused())
        assert dispatch.take_due_for_dispatch(session, redispatch_seconds=30) != []
    event = events(database, job_id)[-1]
    assert (event.kind, event.data) == ("requeued", {"code": "pause_requested"})
    assert claim(database) == job_id


def test_a_cancel_wins_over_a_pause(database: Database) -> None:
    queued, running = add_job(database), add_job(database, priority=1)
    lease = claim_next(database, BOB).lease
    for job_id in (queued, running):
        pause(database, job_id)
        with database.write() as session:
            repository.request_cancel(session, job_id)
    assert get_state(database, queued) is JobState.CANCELLED
    with database.write() as session:
        leases.finish_attempt(session, lease, Paused())
    assert get_state(database, running) is JobState.CANCELLED
    assert not get_job(database, running).paused


@pytest.mark.parametrize("result", [Cancelled(), PermanentFailure("one_class", "One label.")])
def test_a_job_that_ends_despite_the_request_has_ended(
    database: Database, result: AttemptResult
) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    pause(database, job_id)
    with database.write() as session:
        leases.finish_attempt(session, lease, result)
    assert get_state(database, job_id).final
    assert not get_job(database, job_id).paused
    before = events(database, job_id)
    pause(database, job_id)
    assert not resume(database, job_id)
    assert len(events(database, job_id)) == len(before)


def test_pause_and_claim_race_for_one_outcome(database: Database) -> None:
    for _ in range(10):
        job_id = add_job(database)
        start = Barrier(2)
        claimed: list[UUID | None] = []

        def run(start: Barrier = start, claimed: list[UUID | None] = claimed) -> None:
            start.wait()
            claimed.append(claim(database))

        thread = Thread(target=run)
        thread.start()
        start.wait()
        pause(database, job_id)
        thread.join()
        row = get_job(database, job_id)
        assert row.pause_requested_at is not None
        assert (row.paused, row.state) == (claimed == [None], "running" if claimed[0] else "queued")
