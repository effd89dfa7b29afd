"""What a worker may write under its lease, and that it cannot write without one."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from app.database.base import new_id, now
from app.database.engines import Database
from app.queue import leases
from app.queue.enums import JobState
from app.queue.fencing import Lease, LeaseLost, LeaseRenewal
from app.queue.transitions import (
    AttemptResult,
    Cancelled,
    PermanentFailure,
    Preempted,
    RetryableFailure,
    Succeeded,
)
from tests.job_rows import BOB, add_job, claim_next, dump_tables, get_job, preempt, update_job


def renew(database: Database, lease: Lease, **values: int) -> LeaseRenewal | None:
    with database.write() as session:
        answer = leases.renew_lease(session, lease, **{"step": 0, **values})
        return answer


def test_a_renewal_extends_the_lease_and_stores_the_step(database: Database) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    update_job(database, job_id, lease_expires_at=now() + 1)
    assert renew(database, lease, step=4, total_steps=9) == LeaseRenewal(False, False, first_seq=2)
    row = get_job(database, job_id)
    assert (row.step, row.total_steps) == (4, 9)
    assert row.lease_expires_at is not None
    assert row.started_at is not None
    assert row.lease_expires_at > row.started_at + 50


def test_total_steps_are_kept_until_the_next_attempt_reports_them(database: Database) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    renew(database, lease, step=4, total_steps=9)
    preempt(database, lease)
    lease = claim_next(database).lease
    renew(database, lease)
    assert get_job(database, job_id).total_steps == 9
    renew(database, lease, total_steps=12)
    assert get_job(database, job_id).total_steps == 12


def test_a_renewal_reserves_unique_sequence_numbers(database: Database) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease  # 1 is the event of the claim
    assert renew(database, lease, reserve=3) == LeaseRenewal(False, False, first_seq=2)
    assert renew(database, lease, reserve=2) == LeaseRenewal(False, False, first_seq=5)
    assert get_job(database, job_id).stream_seq == 6


def test_a_renewal_returns_a_cancel_request(database: Database) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    update_job(database, job_id, cancel_requested_at=now())
    answer = renew(database, lease)
    assert answer is not None
    assert answer.cancel_requested


def test_a_renewal_returns_a_request_to_pause(database: Database) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    assert renew(database, lease) == LeaseRenewal(False, False, first_seq=2)
    update_job(database, job_id, pause_requested_at=now())
    assert renew(database, lease) == LeaseRenewal(False, True, first_seq=2)


def test_a_late_renewal_keeps_a_job_that_nobody_expired(database: Database) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    update_job(database, job_id, lease_expires_at=now() - 100)
    assert renew(database, lease) is not None


def test_the_first_attempt_can_store_the_resolved_spec(database: Database) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    with database.write() as session:
        leases.store_resolved_spec(session, lease, {"runtime": {"threads": 2}})
    assert get_job(database, job_id).spec == {"runtime": {"threads": 2}}


def test_an_inexact_resume_is_recorded_for_this_job_only(database: Database) -> None:
    job_id, other = add_job(database, priority=1), add_job(database)
    lease = claim_next(database).lease
    claim_next(database)
    with database.write() as session:
        leases.record_resume_exactness(session, replace(lease, attempt=2), exact=False)
    assert get_job(database, job_id).resume_exact
    with database.write() as session:
        leases.record_resume_exactness(session, lease, exact=False)
    assert not get_job(database, job_id).resume_exact
    assert get_job(database, other).resume_exact


@pytest.mark.parametrize("exact", [True, False])
def test_a_job_is_as_exact_as_the_one_that_it_continues(database: Database, exact: bool) -> None:
    ended = {"state": JobState.FAILED, "finished_at": 1.0}
    add_job(database, resume_exact=False, **ended)
    old = add_job(database, resume_exact=exact, **ended)
    job_id = add_job(database, continues=old)
    lease = claim_next(database).lease
    with database.write() as session:
        leases.record_resume_exactness(session, lease, exact=True)
    assert get_job(database, job_id).resume_exact is exact


def test_a_worker_learns_whether_it_has_ended_its_attempt(database: Database) -> None:
    """The response to its last commit may have been lost."""

    def ended(lease: Lease) -> bool:
        with database.read() as session:
            return leases.has_worker_ended_attempt(session, lease)

    add_job(database)
    first = claim_next(database).lease
    assert not ended(first)
    preempt(database, first)
    assert ended(first)
    assert not ended(replace(first, worker=BOB.id))
    assert not ended(replace(first, job_id=new_id()))
    second = claim_next(database).lease
    assert not ended(second)
    with database.write() as session:
        lost = RetryableFailure("lost_worker", "Lost.", backoff_seconds=0)
        assert leases.expire_attempt(
            session, second.job_id, attempt=2, failure=lost, max_failures=3,
            dead_worker=second.worker,
        )  # fmt: skip
    assert not ended(second)


RESULTS: list[AttemptResult] = [
    Succeeded(artifact_id=new_id(), summary={}),
    PermanentFailure("some_code", "Something."),
    Cancelled(),
    Preempted(),
    RetryableFailure("crashed", "It crashed.", 10),
]


def requeued(database: Database) -> Lease:
    """Return a lease on a job that was requeued."""
    lease = claim_next(database).lease
    preempt(database, lease)
    return lease


def reclaimed(database: Database) -> Lease:
    """Return a lease on an attempt after which the same worker claimed the next one."""
    lease = requeued(database)
    assert claim_next(database).lease == replace(lease, attempt=2)
    return lease


def of_another_worker(database: Database) -> Lease:
    """Return a lease with the right attempt but the wrong worker."""
    return replace(claim_next(database).lease, worker=BOB.id)


@pytest.mark.parametrize("lose", [requeued, reclaimed, of_another_worker])
def test_a_worker_without_the_lease_changes_nothing(
    database: Database, lose: Callable[[Database], Lease]
) -> None:
    add_job(database)
    lost = lose(database)
    before = dump_tables(database)
    assert renew(database, lost, step=99, reserve=5) is None
    with database.write() as session:
        for result in RESULTS:
            with pytest.raises(LeaseLost):
                leases.finish_attempt(session, lost, result)
        with pytest.raises(LeaseLost):
            leases.store_resolved_spec(session, lost, {})
    assert dump_tables(database) == before
