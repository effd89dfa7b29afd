"""What becomes of a job when its attempt ends."""

import pytest

from app.database.base import new_id
from app.database.engines import Database
from app.queue import leases
from app.queue.fencing import Lease
from app.queue.states import JobState, Outcome
from app.queue.transitions import (
    Cancelled,
    Ending,
    ExitStatus,
    Failed,
    Preempted,
    Retry,
    Succeeded,
    Waiting,
)
from app.storage.tables import Artifact
from tests.job_rows import (
    add_job,
    attempts,
    change,
    events,
    job,
    state,
    take,
)

CRASHED = Retry("crashed", "It crashed.", backoff_seconds=10)


def finish(database: Database, ending: Ending, left: ExitStatus | None = None) -> None:
    """Claim, do four steps, end."""
    end(database, take(database).lease, ending, left)


def end(database: Database, lease: Lease, ending: Ending, left: ExitStatus | None = None) -> None:
    with database.write() as session:
        leases.beat(session, lease, step=4)
        assert leases.finish(session, lease, ending, left)
        session.commit()


def made(database: Database) -> Succeeded:
    artifact = Artifact(id=new_id(), kind="model", key="k", manifest_sha256="0" * 64, bytes=1)
    with database.write() as session:
        session.add(artifact)
        session.commit()
    return Succeeded(artifact.id, {"accuracy": 0.8})


def test_success_keeps_the_artifact_and_the_summary(database: Database) -> None:
    job_id = add_job(database)
    ending = made(database)
    finish(database, ending, ExitStatus(code=0))
    row = job(database, job_id)
    assert (row.state, row.artifact_id, row.summary) == (
        JobState.SUCCEEDED,
        ending.artifact_id,
        {"accuracy": 0.8},
    )
    assert row.finished_at is not None
    assert row.worker is None
    (attempt,) = attempts(database, job_id)
    assert (attempt.outcome, attempt.exit_code, attempt.last_step) == (Outcome.SUCCEEDED, 0, 4)
    assert attempt.ended_at is not None
    assert [(e.seq, e.kind) for e in events(database, job_id)] == [(1, "started"), (2, "succeeded")]


def test_success_ignores_a_cancel_that_came_too_late(database: Database) -> None:
    job_id = add_job(database, cancel_requested_at=1.0)
    finish(database, made(database))
    assert state(database, job_id) is JobState.SUCCEEDED


def test_a_failure_says_why(database: Database) -> None:
    job_id = add_job(database)
    finish(database, Failed("one_class", "Only one label.", {"label": "x"}), ExitStatus(code=65))
    row = job(database, job_id)
    assert (row.state, row.error_code, row.error_message, row.error_detail) == (
        JobState.FAILED,
        "one_class",
        "Only one label.",
        {"label": "x"},
    )
    closing = events(database, job_id)[-1]
    assert (closing.kind, closing.level, closing.message) == ("failed", "error", "Only one label.")
    assert closing.data == {"code": "one_class"}
    assert attempts(database, job_id)[0].exit_code == 65


def test_a_preempted_job_waits_again_and_nothing_is_counted(database: Database) -> None:
    job_id = add_job(database)
    finish(database, Preempted())
    row = job(database, job_id)
    assert (row.state, row.failures_counted, row.finished_at) == (JobState.QUEUED, 0, None)
    assert attempts(database, job_id)[0].outcome == Outcome.PREEMPTED
    assert take(database).lease.attempt == 2  # at once


@pytest.mark.parametrize(("failures", "wait"), [(0, 10), (1, 20), (2, 40), (31, 600)])
def test_a_failure_that_may_pass_is_counted_and_waits_longer_each_time(
    database: Database, failures: int, wait: float
) -> None:
    job_id = add_job(database)
    finish(database, Preempted())
    change(database, job_id, failures_counted=failures)
    finish(database, CRASHED, ExitStatus(signal=11))
    row = job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, failures + 1)
    _, attempt = attempts(database, job_id)
    assert (attempt.outcome, attempt.signal) == (Outcome.FAILED, 11)
    assert attempt.ended_at is not None
    assert row.run_after - attempt.ended_at == pytest.approx(wait, abs=5)
    closing = events(database, job_id)[-1]
    assert (closing.kind, closing.level, closing.data) == (
        "requeued",
        "warning",
        {"code": "crashed"},
    )


def test_the_next_claim_knows_that_an_attempt_failed_from_there(database: Database) -> None:
    add_job(database)
    finish(database, Preempted())
    claimed = take(database)
    assert (claimed.failures, claimed.failed_at) == (0, frozenset())
    end(database, claimed.lease, Retry("crashed", "It crashed.", backoff_seconds=0))
    claimed = take(database)
    assert (claimed.failures, claimed.furthest, claimed.failed_at) == (1, 4, frozenset({4}))


def test_a_kill_says_nothing_about_the_training(database: Database) -> None:
    job_id = add_job(database)
    finish(database, CRASHED, ExitStatus(signal=9))
    change(database, job_id, run_after=0.0)
    claimed = take(database)
    assert (claimed.failures, claimed.furthest, claimed.failed_at) == (1, 4, frozenset())


def test_a_job_waits_for_the_disk_without_a_failure_and_says_why(database: Database) -> None:
    job_id = add_job(database)
    wait = Waiting("storage_unavailable", "The disk is full.", seconds=0)
    finish(database, wait)
    row = job(database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 0)
    assert (row.waiting_code, row.waiting_message) == (wait.code, wait.message)
    since = row.waiting_since
    assert since is not None
    claimed = take(database)
    assert claimed.waited_seconds is not None
    assert 0 <= claimed.waited_seconds < 60
    end(database, claimed.lease, wait)
    assert job(database, job_id).waiting_since == since
    end(database, take(database).lease, Preempted())
    assert job(database, job_id).waiting_since is None


def test_the_time_of_all_attempts_adds_up(database: Database) -> None:
    job_id = add_job(database, time_limit_seconds=60)
    finish(database, Preempted())
    first = job(database, job_id).running_seconds
    assert 0 < first < 60
    claimed = take(database)
    assert (claimed.time_limit_seconds, claimed.running_seconds) == (60, first)
    end(database, claimed.lease, Preempted())
    assert job(database, job_id).running_seconds > first


@pytest.mark.parametrize("ending", [Preempted(), CRASHED, Cancelled()])
def test_a_job_to_be_cancelled_never_waits_again(database: Database, ending: Ending) -> None:
    job_id = add_job(database, cancel_requested_at=1.0)
    finish(database, ending)
    row = job(database, job_id)
    assert row.state == JobState.CANCELLED
    assert row.finished_at is not None
    assert events(database, job_id)[-1].kind == "cancelled"
