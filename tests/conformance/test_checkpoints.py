"""Where a job resumes, and which points of its curves are kept."""

import pytest

from app.database.engines import Database
from app.queue import checkpoints, leases
from app.queue.fencing import Lease, LeaseLost, StoredCheckpoint
from app.queue.tables import Job, MetricPoint
from app.queue.transitions import (
    AttemptResult,
    InfrastructureUnavailable,
    PermanentFailure,
    Preempted,
    RetryableFailure,
)
from app.storage.store import ArtifactRef
from tests.job_rows import add_job, attempts, claim_next, events, get_job, points, preempt


def end(database: Database, lease: Lease, result: AttemptResult) -> None:
    with database.write() as session:
        leases.finish_attempt(session, lease, result)


def point(database: Database, lease: Lease, step: int) -> None:
    with database.write() as session:
        renewal = leases.renew_lease(session, lease, step=step, reserve=1)
        assert renewal is not None
        row = {"split": "train", "name": "loss", "step": step, "value": 1 / step}
        session.add(MetricPoint(job_id=lease.job_id, seq=renewal.first_seq, attempt=1, **row))


def save(database: Database, lease: Lease, step: int) -> list[str] | None:
    key = f"checkpoints/{lease.job_id}/a{lease.attempt}/step-{step}"
    ref = ArtifactRef(key, "0" * 64, 9)
    with database.write() as session:
        renewal = leases.renew_lease(session, lease, step=step, reserve=1)
        if renewal is None:
            return None
        stale = checkpoints.record_and_rotate_checkpoints(
            session, lease, step=step, ref=ref, seq=renewal.first_seq
        )
    return stale


def reject(
    database: Database, lease: Lease, step: int, attempt: int = 1
) -> StoredCheckpoint | None:
    with database.write() as session:
        found = checkpoints.rewind_metrics_to_newest_checkpoint(session, lease.job_id)
        assert found is not None
        assert (found.attempt, found.step) == (attempt, step)
        rewound = checkpoints.reject_checkpoint_and_rewind(session, lease, found, "odd bytes")
    return rewound


def steps(database: Database, lease: Lease) -> list[int]:
    return [each.step for each in points(database, lease.job_id)]


def test_the_next_attempt_starts_at_the_newest_checkpoint_without_later_points(
    database: Database,
) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    for step in (1, 2):
        point(database, lease, step)
    save(database, lease, 2)
    point(database, lease, 3)
    preempt(database, lease)
    claimed = claim_next(database)
    assert claimed.checkpoint is not None
    assert (claimed.checkpoint.step, claimed.checkpoint.attempt) == (2, 1)
    assert steps(database, lease) == [1, 2]
    assert get_job(database, job_id).step == 2
    assert "from step 2" in events(database, job_id)[-1].message


def test_a_later_point_of_the_same_step_is_reported_again(database: Database) -> None:
    """Saved before an evaluation: its metrics come after the checkpoint, at the same step."""
    add_job(database)
    lease = claim_next(database).lease
    save(database, lease, 2)
    point(database, lease, 2)
    preempt(database, lease)
    claim_next(database)
    assert steps(database, lease) == []


def test_the_two_newest_checkpoints_are_kept(database: Database) -> None:
    add_job(database)
    lease = claim_next(database).lease
    assert [save(database, lease, step) for step in (1, 2)] == [[], []]
    assert save(database, lease, 3) == [f"checkpoints/{lease.job_id}/a1/step-1"]
    preempt(database, lease)
    lease = claim_next(database).lease
    assert save(database, lease, 4) == [f"checkpoints/{lease.job_id}/a1/step-2"]


def test_a_damaged_checkpoint_is_never_used_again(database: Database) -> None:
    job_id = add_job(database)
    lease = claim_next(database).lease
    for step in (1, 2):
        point(database, lease, step)
        save(database, lease, step)
    preempt(database, lease)
    lease = claim_next(database).lease
    rewound = reject(database, lease, 2)
    assert rewound is not None
    assert rewound.step == 1
    assert steps(database, lease) == [1]
    assert [each.first_step for each in attempts(database, job_id)] == [0, 1]
    assert get_job(database, job_id).step == 1
    event = events(database, job_id)[-1]
    assert (event.kind, event.level, event.data["step"]) == ("checkpoint_rejected", "warning", 2)
    assert reject(database, lease, 1) is None
    assert steps(database, lease) == []
    preempt(database, lease)
    assert claim_next(database).checkpoint is None


def test_a_job_inherits_the_curves_up_to_the_checkpoint_that_it_continues(
    database: Database,
) -> None:
    add_job(database, priority=1)
    other = claim_next(database).lease
    point(database, other, 1)
    continued = add_job(database)
    lease = claim_next(database).lease
    point(database, lease, 1)
    save(database, lease, 1)
    point(database, lease, 2)
    end(database, lease, PermanentFailure("code", "Failed."))
    job_id = add_job(database, continues=continued)
    with database.write() as session:
        start = checkpoints.find_newest_usable_checkpoint(session, continued)
        assert start is not None
        checkpoints.inherit_metric_points(session, session.get_one(Job, job_id), start)
    copied, original = points(database, job_id), points(database, continued)
    assert [(row.seq, row.step, row.value) for row in copied] == [
        (row.seq, row.step, row.value) for row in original[:1]
    ]
    assert len(original) == 2
    claimed = claim_next(database)
    assert claimed.checkpoint is not None
    assert (claimed.checkpoint.job_id, claimed.checkpoint.step) == (continued, 1)
    assert len(points(database, job_id)) == 1


def test_rejecting_a_checkpoint_changes_no_other_job(database: Database) -> None:
    leases_of_attempts = []
    for step in (5, 3):
        add_job(database)
        lease = claim_next(database).lease
        save(database, lease, step)
        preempt(database, lease)
        leases_of_attempts.append(claim_next(database).lease)
    other, lease = leases_of_attempts
    assert reject(database, lease, 3) is None
    assert [each.first_step for each in attempts(database, lease.job_id)] == [0, 0]
    assert [each.first_step for each in attempts(database, other.job_id)] == [0, 5]


def test_a_worker_that_lost_the_lease_cannot_save_or_reject(database: Database) -> None:
    job_id = add_job(database)
    old = claim_next(database).lease
    save(database, old, 1)
    preempt(database, old)
    lease = claim_next(database).lease
    before = len(events(database, job_id))
    assert save(database, old, 2) is None
    with pytest.raises(LeaseLost):
        reject(database, old, 1)
    assert len(events(database, job_id)) == before
    preempt(database, lease)
    claimed = claim_next(database)
    assert claimed.checkpoint is not None
    assert claimed.checkpoint.step == 1


def test_a_checkpoint_resets_failures_and_ends_the_wait(database: Database) -> None:
    job_id = add_job(database)
    end(
        database,
        claim_next(database).lease,
        RetryableFailure("crashed", "It crashed.", backoff_seconds=0),
    )
    claimed = claim_next(database)
    assert claimed.failure_count == 1
    end(
        database,
        claimed.lease,
        InfrastructureUnavailable("storage_unavailable", "The disk is full.", seconds=0),
    )
    lease = claim_next(database).lease
    save(database, lease, 5)
    row = get_job(database, job_id)
    assert (row.failures_counted, row.waiting_since, row.waiting_code) == (0, None, None)
    end(database, lease, Preempted())
    assert not claim_next(database).failed_steps
