"""Where a job goes on, and what the curves keep."""

from app.database.engines import Database
from app.queue import checkpoints, leases
from app.queue.fencing import Lease, Rewound
from app.queue.tables import MetricPoint
from app.queue.transitions import Ending, Preempted, Retry, Waiting
from app.storage.store import ArtifactRef
from tests.job_rows import add_job, events, give_back, job, points, take


def end(database: Database, lease: Lease, ending: Ending) -> None:
    with database.write() as session:
        assert leases.finish(session, lease, ending)
        session.commit()


def point(database: Database, lease: Lease, step: int) -> None:
    with database.write() as session:
        beat = leases.beat(session, lease, step=step, reserve=1)
        assert beat is not None
        row = {"split": "train", "name": "loss", "step": step, "value": 1 / step}
        session.add(MetricPoint(job_id=lease.job_id, seq=beat.first_seq, attempt=1, **row))
        session.commit()


def save(database: Database, lease: Lease, step: int) -> list[str] | None:
    key = f"checkpoints/{lease.job_id}/a{lease.attempt}/step-{step}"
    ref = ArtifactRef(key, "0" * 64, 9)
    with database.write() as session:
        beat = leases.beat(session, lease, step=step, reserve=1)
        if beat is None:
            return None
        stale = checkpoints.add(session, lease, step=step, ref=ref, seq=beat.first_seq)
        session.commit()
    return stale


def reject(database: Database, lease: Lease, step: int, attempt: int = 1) -> Rewound | None:
    with database.write() as session:
        found = checkpoints.rewind(session, lease.job_id)
        assert found is not None
        assert (found.attempt, found.step) == (attempt, step)
        rewound = checkpoints.reject(session, lease, found, "odd bytes")
        session.commit()
    return rewound


def steps(database: Database, lease: Lease) -> list[int]:
    return [each.step for each in points(database, lease.job_id)]


def test_the_next_attempt_begins_at_the_newest_and_without_later_points(database: Database) -> None:
    job_id = add_job(database)
    lease = take(database).lease
    for step in (1, 2):
        point(database, lease, step)
    save(database, lease, 2)
    point(database, lease, 3)
    give_back(database, lease)
    claimed = take(database)
    assert claimed.checkpoint is not None
    assert (claimed.checkpoint.step, claimed.checkpoint.attempt) == (2, 1)
    assert steps(database, lease) == [1, 2]
    assert job(database, job_id).step == 2
    assert "from step 2" in events(database, job_id)[-1].message


def test_a_point_of_the_same_step_that_was_told_later_is_told_again(database: Database) -> None:
    """Saved before an evaluation: its figures come after the checkpoint, at the same step."""
    add_job(database)
    lease = take(database).lease
    save(database, lease, 2)
    point(database, lease, 2)
    give_back(database, lease)
    take(database)
    assert steps(database, lease) == []


def test_the_two_newest_are_kept(database: Database) -> None:
    add_job(database)
    lease = take(database).lease
    assert [save(database, lease, step) for step in (1, 2)] == [[], []]
    assert save(database, lease, 3) == [f"checkpoints/{lease.job_id}/a1/step-1"]
    give_back(database, lease)
    lease = take(database).lease
    assert save(database, lease, 4) == [f"checkpoints/{lease.job_id}/a1/step-2"]


def test_a_damaged_one_is_never_used_again(database: Database) -> None:
    job_id = add_job(database)
    lease = take(database).lease
    for step in (1, 2):
        point(database, lease, step)
        save(database, lease, step)
    give_back(database, lease)
    lease = take(database).lease
    rewound = reject(database, lease, 2)
    assert rewound is not None
    assert rewound.checkpoint is not None
    assert rewound.checkpoint.step == 1
    assert steps(database, lease) == [1]
    assert job(database, job_id).step == 1
    told = events(database, job_id)[-1]
    assert (told.kind, told.level, told.data["step"]) == ("checkpoint_rejected", "warning", 2)
    assert reject(database, lease, 1) == Rewound(None)
    assert steps(database, lease) == []
    give_back(database, lease)
    assert take(database).checkpoint is None


def test_who_lost_the_job_saves_and_rejects_nothing(database: Database) -> None:
    job_id = add_job(database)
    old = take(database).lease
    save(database, old, 1)
    give_back(database, old)
    lease = take(database).lease
    before = len(events(database, job_id))
    assert save(database, old, 2) is None
    assert reject(database, old, 1) is None
    assert len(events(database, job_id)) == before
    give_back(database, lease)
    claimed = take(database)
    assert claimed.checkpoint is not None
    assert claimed.checkpoint.step == 1


def test_progress_forgives_failures_and_ends_the_wait(database: Database) -> None:
    job_id = add_job(database)
    end(database, take(database).lease, Retry("crashed", "It crashed.", backoff_seconds=0))
    claimed = take(database)
    assert claimed.failures == 1
    end(database, claimed.lease, Waiting("storage_unavailable", "The disk is full.", seconds=0))
    lease = take(database).lease
    save(database, lease, 5)
    row = job(database, job_id)
    assert (row.failures_counted, row.waiting_since, row.waiting_code) == (0, None, None)
    end(database, lease, Preempted())
    assert not take(database).failed_at
