"""What happens to a job when its attempt ends."""

import pytest

from app.database.base import new_id
from app.database.engines import Database
from app.queue import leases
from app.queue.enums import AttemptOutcome, JobState
from app.queue.fencing import Lease
from app.queue.transitions import (
    AttemptResult,
    Cancelled,
    InfrastructureUnavailable,
    PermanentFailure,
    Preempted,
    ProcessExitStatus,
    RetryableFailure,
    Succeeded,
)
from app.storage.tables import Artifact
from tests.conformance.conftest import on_sqlite_first
from tests.job_rows import (
    add_job,
    attempts,
    claim_next,
    events,
    get_job,
    get_state,
    update_job,
)

CRASHED = RetryableFailure("crashed", "It crashed.", backoff_seconds=10)
DISK_FULL = InfrastructureUnavailable("storage_unavailable", "The disk is full.", seconds=0)


def finish(
    database: Database, result: AttemptResult, exit_status: ProcessExitStatus | None = None
) -> None:
    """Claim a job, do four steps, and end the attempt."""
    end(database, claim_next(database).lease, result, exit_status)


def end(
    database: Database,
    lease: Lease,
    result: AttemptResult,
    exit_status: ProcessExitStatus | None = None,
) -> None:
    with database.write() as session:
        leases.renew_lease(session, lease, step=4)
        leases.finish_attempt(session, lease, result, exit_status)


def success_with_artifact(database: Database) -> Succeeded:
    artifact = Artifact(id=new_id(), kind="model", key="k", manifest_sha256="0" * 64, bytes=1)
    with database.write() as session:
        session.add(artifact)
    return Succeeded(artifact.id, {"accuracy": 0.8})


def test_success_keeps_the_artifact_and_the_summary(database: Database) -> None:
    job_id = add_job(database)
    result = success_with_artifact(database)
    finish(database, result, ProcessExitStatus(code=0))
    row = get_job(database, job_id)
    assert (row.state, row.artifact_id, row.summary) == (
        JobState.SUCCEEDED,
        result.artifact_id,
        {"accuracy": 0.8},
    )
    assert row.finished_at is not None
    assert row.worker is None
    (attempt,) = attempts(database, job_id)
    assert (attempt.outcome, attempt.exit_code, attempt.last_step) == (
        AttemptOutcome.SUCCEEDED,
        0,
        4,
    )
    assert attempt.ended_at is not None
    assert [(e.seq, e.kind) for e in events(database, job_id)] == [(1, "started"), (2, "succeeded")]


def test_success_ignores_a_cancel_that_came_too_late(database: Database) -> None:
    job_id = add_job(database, cancel_requested_at=1.0)
    finish(database, success_with_artifact(database))
    assert get_state(database, job_id) is JobState.SUCCEEDED


def test_a_failure_stores_its_reason(database: Database) -> None:
    job_id = add_job(database)
    finish(
        database,
        PermanentFailure("one_class", "Only one label.", {"label": "x"}),
        ProcessExitStatus(code=65),
    )
    row = get_job(database, job_id)
    assert (row.state, row.error_code, row.error_message, row.error_detail) == (
        JobState.FAILED,
        "one_class",
        "Only one label.",
        {"label": "x"},
    )
    event = events(database, job_id)[-1]
    assert (event.kind, event.level, event.message) == ("failed", "error", "Only one label.")
    assert event.data == {"code": "one_class"}
    assert attempts(database, job_id)[0].exit_code == 65


def test_a_preempted_job_is_requeued_without_counting_a_failure(database: Database) -> None:
    job_id = add_job(database)
    finish(database, Preempted())
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted, row.finished_at) == (JobState.QUEUED, 0, None)
    assert attempts(database, job_id)[0].outcome == AttemptOutcome.PREEMPTED
    assert claim_next(database).lease.attempt == 2  # at once


@pytest.mark.parametrize(("failures", "wait"), [(0, 10), (1, 20), (2, 40), (31, 600)])
@on_sqlite_first
def test_a_retryable_failure_is_counted_and_backs_off(
    database: Database, failures: int, wait: float
) -> None:
    job_id = add_job(database)
    finish(database, Preempted())
    update_job(database, job_id, failures_counted=failures)
    finish(database, CRASHED, ProcessExitStatus(signal=11))
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, failures + 1)
    _, attempt = attempts(database, job_id)
    assert (attempt.outcome, attempt.signal) == (AttemptOutcome.FAILED, 11)
    assert attempt.ended_at is not None
    assert row.run_after - attempt.ended_at == pytest.approx(wait, abs=5)
    event = events(database, job_id)[-1]
    assert (event.kind, event.level, event.data) == (
        "requeued",
        "warning",
        {"code": "crashed"},
    )


def test_the_next_claim_returns_the_steps_of_earlier_failures(database: Database) -> None:
    add_job(database)
    finish(database, Preempted())
    claimed = claim_next(database)
    assert (claimed.failure_count, claimed.failed_steps) == (0, frozenset())
    end(database, claimed.lease, RetryableFailure("crashed", "It crashed.", backoff_seconds=0))
    claimed = claim_next(database)
    assert (claimed.failure_count, claimed.furthest_step, claimed.failed_steps) == (
        1,
        4,
        frozenset({4}),
    )


def test_a_kill_is_not_a_failed_step(database: Database) -> None:
    job_id = add_job(database)
    finish(database, CRASHED, ProcessExitStatus(signal=9))
    update_job(database, job_id, run_after=0.0)
    claimed = claim_next(database)
    assert (claimed.failure_count, claimed.furthest_step, claimed.failed_steps) == (
        1,
        4,
        frozenset(),
    )


def test_a_job_waits_for_the_disk_without_a_failure_and_shows_why(database: Database) -> None:
    job_id = add_job(database)
    finish(database, DISK_FULL)
    row = get_job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 0)
    assert (row.waiting_code, row.waiting_message) == (DISK_FULL.code, DISK_FULL.message)
    since = row.waiting_since
    assert since is not None
    claimed = claim_next(database)
    assert claimed.waited_seconds is not None
    assert 0 <= claimed.waited_seconds < 60
    end(database, claimed.lease, DISK_FULL)
    assert get_job(database, job_id).waiting_since == since
    end(database, claim_next(database).lease, Preempted())
    assert get_job(database, job_id).waiting_since is None


def test_the_running_time_of_all_attempts_adds_up(database: Database) -> None:
    job_id = add_job(database, time_limit_seconds=60)
    finish(database, Preempted())
    first = get_job(database, job_id).running_seconds
    assert 0 < first < 60
    claimed = claim_next(database)
    assert (claimed.time_limit_seconds, claimed.running_seconds) == (60, first)
    end(database, claimed.lease, Preempted())
    assert get_job(database, job_id).running_seconds > first


@pytest.mark.parametrize("result", [Preempted(), CRASHED, Cancelled(), DISK_FULL])
def test_a_job_with_a_cancel_request_is_never_requeued(
    database: Database, result: AttemptResult
) -> None:
    job_id = add_job(database, cancel_requested_at=1.0)
    finish(database, result)
    row = get_job(database, job_id)
    assert (row.state, row.waiting_code) == (JobState.CANCELLED, None)
    assert row.finished_at is not None
    assert events(database, job_id)[-1].kind == "cancelled"
