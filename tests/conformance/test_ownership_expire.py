"""What becomes of a job whose worker is lost."""

import pytest
from sqlalchemy import update

from app.database.clock import now
from app.database.engines import Database
from app.queue import leases
from app.queue.fencing import Lease
from app.queue.states import JobState, Lane, Outcome
from app.queue.tables import Attempt
from app.queue.transitions import Preempted, Retry
from tests.conformance.test_ownership_endings import made
from tests.job_rows import (
    ALICE,
    add_job,
    attempts,
    change,
    events,
    everything,
    give_back,
    job,
    state,
    take,
)

LOST = Retry("lost_worker", "The worker is gone.", backoff_seconds=10)


def expire(database: Database, lease: Lease, *, gone: str | None = None, failures: int = 3) -> bool:
    with database.write() as session:
        expired = leases.expire(
            session,
            lease.job_id,
            seen_attempt=lease.attempt,
            lost=LOST,
            max_failures=failures,
            gone=gone,
        )
        session.commit()
        return expired


def test_a_lost_job_waits_again_and_is_counted(database: Database) -> None:
    job_id = add_job(database)
    lease = take(database).lease
    change(database, job_id, lease_expires_at=now() - 0.01)
    assert expire(database, lease)
    row = job(database, job_id)
    assert (row.state, row.failures_counted, row.worker) == (JobState.QUEUED, 1, None)
    assert attempts(database, job_id)[0].outcome == Outcome.LOST
    assert row.error_code is None


def test_a_lease_that_lasts_is_not_expired(database: Database) -> None:
    add_job(database)
    lease = take(database).lease
    before = everything(database)
    assert not expire(database, lease)
    assert everything(database) == before


def test_a_worker_that_is_known_to_be_gone_loses_its_lease_at_once(database: Database) -> None:
    job_id = add_job(database)
    lease = take(database).lease
    assert not expire(database, lease, gone="bob")
    assert expire(database, lease, gone="alice")
    assert state(database, job_id) is JobState.QUEUED


@pytest.mark.parametrize(
    ("began", "leased_until", "counted"),
    [(-7200, -7110, 90), (-30, 60, 30)],
    ids=["the machine was off for two hours", "its end was seen at once"],
)
def test_only_the_time_in_which_it_ran_counts(
    database: Database, began: int, leased_until: int, counted: int
) -> None:
    job_id = add_job(database, time_limit_seconds=3600)
    lease = take(database).lease
    change(database, job_id, lease_expires_at=now() + leased_until)
    with database.write() as session:
        session.execute(update(Attempt).values(started_at=now() + began))
        session.commit()
    assert expire(database, lease, gone="alice")
    assert job(database, job_id).running_seconds == pytest.approx(counted, abs=20)


def test_a_rescue_that_looked_too_early_spares_the_next_attempt(database: Database) -> None:
    job_id = add_job(database)
    seen = take(database).lease
    give_back(database, seen)
    take(database)
    change(database, job_id, lease_expires_at=now() - 1)
    before = everything(database)
    assert not expire(database, seen, gone="alice")
    assert everything(database) == before


def test_the_last_loss_fails_the_job(database: Database) -> None:
    job_id = add_job(database, failures_counted=2)
    lease = take(database).lease
    assert expire(database, lease, gone="alice", failures=3)
    row = job(database, job_id)
    assert (row.state, row.error_code) == (JobState.FAILED, "lost_worker")
    assert row.error_message is not None
    assert row.error_message.startswith("The worker is gone. This was failure 3 in a row ")
    assert row.finished_at is not None


def lose_at(database: Database, *steps: int) -> None:
    """Lose a worker after each of these steps; three times without progress end the job."""
    for step in steps:
        lease = take(database).lease
        with database.write() as session:
            assert leases.beat(session, lease, step=step)
            session.commit()
        assert expire(database, lease, gone="alice", failures=3)
        change(database, lease.job_id, run_after=0.0)


def test_a_job_that_gets_further_survives_any_number_of_lost_workers(database: Database) -> None:
    job_id = add_job(database)
    lose_at(database, 3, 2, 5, 6, 1, 7, 9)
    row = job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 1)


@pytest.mark.parametrize(
    ("steps", "code"),
    [((4, 4, 4), "crash_loop"), ((4, 4, 2), "lost_worker"), ((0, 0, 0), "lost_worker")],
)
def test_a_job_that_gets_no_further_is_given_up(
    database: Database, steps: tuple[int, ...], code: str
) -> None:
    job_id = add_job(database)
    lose_at(database, *steps)
    row = job(database, job_id)
    assert (row.state, row.error_code) == (JobState.FAILED, code)
    assert events(database, job_id)[-1].data == {"code": code}


@pytest.mark.parametrize("failures", [0, 2])
def test_a_lost_job_that_was_to_be_cancelled_is_cancelled(
    database: Database, failures: int
) -> None:
    job_id = add_job(database, failures_counted=failures)
    lease = take(database).lease
    change(database, job_id, cancel_requested_at=now())
    assert expire(database, lease, gone="alice", failures=3)
    row = job(database, job_id)
    assert (row.state, row.error_code) == (JobState.CANCELLED, None)


def test_of_success_and_rescue_the_first_commit_wins(database: Database) -> None:
    first, second = add_job(database, priority=1), add_job(database)
    ending = made(database)
    lease = take(database).lease
    with database.write() as session:
        assert leases.finish(session, lease, ending)
        session.commit()
    assert not expire(database, lease, gone="alice")
    assert state(database, first) is JobState.SUCCEEDED
    lease = take(database).lease
    assert expire(database, lease, gone="alice")
    with database.write() as session:
        assert not leases.finish(session, lease, ending)
        session.commit()
    row = job(database, second)
    assert (row.state, row.artifact_id) == (JobState.QUEUED, None)


@pytest.mark.parametrize("final", [state for state in JobState if state.final])
def test_a_final_state_never_changes(database: Database, final: JobState) -> None:
    job_id = add_job(database, state=final, finished_at=1.0, attempt=1)
    before = everything(database)
    with database.write() as session:
        claimed = leases.claim(session, owner=ALICE, lane=Lane.CPU, device="cpu", lease_seconds=1)
        assert claimed is None
        lease = Lease(job_id, 1, "alice", 60)
        assert leases.beat(session, lease, step=1) is None
        assert not leases.finish(session, lease, Preempted())
        session.commit()
    assert not expire(database, lease, gone="alice")
    assert everything(database) == before
