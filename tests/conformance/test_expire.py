"""What happens to a job whose worker is lost."""

import pytest
from sqlalchemy import update

from app.database.base import now
from app.database.engines import Database
from app.queue import leases
from app.queue.enums import AttemptOutcome, DeviceClass, JobState
from app.queue.fencing import Lease, LeaseLost
from app.queue.tables import Attempt
from app.queue.transitions import Preempted, RetryableFailure
from tests.conformance.conftest import on_sqlite_first
from tests.conformance.test_attempt_results import success_with_artifact
from tests.job_rows import (
    ALICE,
    add_job,
    attempts,
    claim_next,
    dump_tables,
    events,
    get_job,
    get_state,
    preempt,
    update_job,
)

LOST = RetryableFailure("lost_worker", "The worker is gone.", backoff_seconds=10)


def expire(
    database: Database, lease: Lease, *, dead_worker: str | None = None, failures: int = 3
) -> bool:
    with database.write() as session:
        expired = leases.expire_attempt(
            session,
            lease.job_id,
            attempt=lease.attempt,
            failure=LOST,
            max_failures=failures,
            dead_worker=dead_worker,
        )
        return expired


def test_a_lost_job_is_requeued_and_counted(database: Database) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    update_job(database, job_id, lease_expires_at=now() - 0.01)
    assert expire(database, lease)
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted, row.worker) == (JobState.QUEUED, 1, None)
    assert attempts(database, job_id)[0].outcome == AttemptOutcome.LOST
    assert row.error_code is None


def test_a_valid_lease_does_not_expire(database: Database) -> None:
    add_job(database)
    lease = claim_next(database).lease
    before = dump_tables(database)
    assert not expire(database, lease)
    assert dump_tables(database) == before


def test_a_dead_worker_loses_its_lease_at_once(database: Database) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    assert not expire(database, lease, dead_worker="bob")
    assert expire(database, lease, dead_worker="alice")
    assert get_state(database, job_id) is JobState.QUEUED


@pytest.mark.parametrize(
    ("began", "leased_until", "counted"),
    [(-7200, -7110, 90), (-30, 60, 30)],
    ids=["the host was off for two hours", "the worker's death was noticed at once"],
)
@on_sqlite_first
def test_only_the_time_under_the_lease_counts(
    database: Database, began: int, leased_until: int, counted: int
) -> None:
    job_id = add_job(database, time_limit_seconds=3600)
    lease = claim_next(database).lease
    update_job(database, job_id, lease_expires_at=now() + leased_until)
    with database.write() as session:
        session.execute(update(Attempt).values(started_at=now() + began))
    assert expire(database, lease, dead_worker="alice")
    assert get_job(database, job_id).running_seconds == pytest.approx(counted, abs=20)


def test_expiring_an_earlier_attempt_spares_the_next_one(database: Database) -> None:
    job_id = add_job(database)
    seen = claim_next(database).lease
    preempt(database, seen)
    claim_next(database)
    update_job(database, job_id, lease_expires_at=now() - 1)
    before = dump_tables(database)
    assert not expire(database, seen, dead_worker="alice")
    assert dump_tables(database) == before


def test_the_last_allowed_loss_fails_the_job(database: Database) -> None:
    job_id = add_job(database, failures_counted=2)
    lease = claim_next(database).lease
    assert expire(database, lease, dead_worker="alice", failures=3)
    row = get_job(database, job_id)
    assert (row.state, row.error_code) == (JobState.FAILED, "lost_worker")
    assert row.error_message is not None
    assert row.error_message.startswith("The worker is gone. This was failure 3 in a row ")
    assert row.finished_at is not None


def lose_at(database: Database, *steps: int) -> None:
    """Lose a worker after each of these steps; three losses without progress fail the job."""
    for step in steps:
        lease = claim_next(database).lease
        with database.write() as session:
            assert leases.renew_lease(session, lease, step=step)
        assert expire(database, lease, dead_worker="alice", failures=3)
        update_job(database, lease.job_id, run_after=0.0)


def test_a_job_with_progress_survives_any_number_of_lost_workers(database: Database) -> None:
    other = add_job(database)
    lose_at(database, 100)
    update_job(database, other, run_after=now() + 600)
    job_id = add_job(database)
    lose_at(database, 3, 2, 5, 6, 1, 7, 9)
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 1)


@pytest.mark.parametrize(
    ("steps", "code"),
    [
        ((4, 4, 4), "crash_loop"),
        ((1, 1, 1), "crash_loop"),
        ((4, 4, 2), "lost_worker"),
        ((0, 0, 0), "lost_worker"),
    ],
)
@on_sqlite_first
def test_a_job_without_progress_fails(
    database: Database, steps: tuple[int, ...], code: str
) -> None:
    job_id = add_job(database)
    lose_at(database, *steps[:2])
    row = get_job(database, job_id)
    assert (row.state, row.error_code, row.error_message) == (JobState.QUEUED, None, None)
    lose_at(database, *steps[2:])
    row = get_job(database, job_id)
    assert (row.state, row.error_code) == (JobState.FAILED, code)
    assert events(database, job_id)[-1].data == {"code": code}


@pytest.mark.parametrize("failures", [0, 2])
def test_a_lost_job_with_a_cancel_request_is_cancelled(database: Database, failures: int) -> None:
    job_id = add_job(database, failures_counted=failures)
    lease = claim_next(database).lease
    update_job(database, job_id, cancel_requested_at=now())
    assert expire(database, lease, dead_worker="alice", failures=3)
    row = get_job(database, job_id)
    assert (row.state, row.error_code) == (JobState.CANCELLED, None)


def test_between_success_and_expiry_the_first_commit_wins(database: Database) -> None:
    first, second = add_job(database, priority=1), add_job(database)
    result = success_with_artifact(database)
    lease = claim_next(database).lease
    with database.write() as session:
        leases.finish_attempt(session, lease, result)
    assert not expire(database, lease, dead_worker="alice")
    assert get_state(database, first) is JobState.SUCCEEDED
    lease = claim_next(database).lease
    assert expire(database, lease, dead_worker="alice")
    with pytest.raises(LeaseLost), database.write() as session:
        leases.finish_attempt(session, lease, result)
    row = get_job(database, second)
    assert (row.state, row.artifact_id) == (JobState.QUEUED, None)


@pytest.mark.parametrize("final", [get_state for get_state in JobState if get_state.final])
def test_a_final_state_never_changes(database: Database, final: JobState) -> None:
    job_id = add_job(database, state=final, finished_at=1.0, attempt=1)
    before = dump_tables(database)
    with database.write() as session:
        claimed = leases.claim_job(
            session, owner=ALICE, device_class=DeviceClass.CPU, device="cpu", lease_seconds=1
        )
        assert claimed is None
        lease = Lease(job_id, 1, "alice", 60)
        assert leases.renew_lease(session, lease, step=1) is None
        with pytest.raises(LeaseLost):
            leases.finish_attempt(session, lease, Preempted())
    assert not expire(database, lease, dead_worker="alice")
    assert dump_tables(database) == before
