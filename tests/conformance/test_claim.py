"""Which worker claims which job."""

from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.database.base import new_id, now
from app.database.engines import Database
from app.jobs import repository
from app.queue import leases
from app.queue.enums import DeviceClass, JobState
from app.queue.fencing import ClaimedJob, WorkerIdentity
from app.queue.tables import Job, MetricPoint
from app.settings import Settings
from tests.conformance.conftest import KINDS
from tests.conformance.race import race
from tests.job_rows import (
    ALICE,
    BOB,
    add_job,
    attempts,
    claim_next,
    events,
    get_job,
    points,
    preempt,
    update_job,
)
from tests.slow import slow_but


def claim(
    database: Database,
    device_class: DeviceClass = DeviceClass.CPU,
    owner: WorkerIdentity = ALICE,
    job_id: UUID | None = None,
) -> ClaimedJob | None:
    with database.write() as session:
        return leases.claim_job(
            session,
            owner=owner,
            device_class=device_class,
            device=device_class,
            lease_seconds=60,
            job_id=job_id,
        )


def test_the_highest_priority_comes_first_and_then_the_oldest(database: Database) -> None:
    young = add_job(database, created_at=now() - 1, run_after=now() - 9)
    old = add_job(database, created_at=now() - 5, run_after=now() - 1)
    urgent = add_job(database, priority=1)
    order = [claimed.lease.job_id for _ in range(3) if (claimed := claim(database))]
    assert order == [urgent, old, young]
    assert claim(database) is None


@pytest.mark.parametrize("database_kind", ["postgresql"])  # SQLite has a single writer
def test_a_job_that_another_transaction_has_locked_is_not_waited_for(database: Database) -> None:
    first, second = add_job(database, priority=1), add_job(database)
    with database.write() as session:
        session.execute(select(Job.id).where(Job.id == first).with_for_update())
        claimed = claim(database)
    assert claimed is not None
    assert claimed.lease.job_id == second


def test_jobs_of_the_same_time_are_claimed_in_the_order_of_their_ids(database: Database) -> None:
    ids = [add_job(database, created_at=1000.0) for _ in range(3)]
    assert [c.lease.job_id for _ in ids if (c := claim(database))] == sorted(ids)


def test_a_job_is_not_claimed_before_it_is_due(database: Database) -> None:
    job_id = add_job(database, run_after=now() + 60)
    assert claim(database) is None
    update_job(database, job_id, run_after=now())
    assert claim(database) is not None


def test_an_interrupted_job_keeps_its_queue_position(database: Database) -> None:
    first, second = add_job(database), add_job(database)
    for _ in range(3):
        claimed = claim_next(database)
        assert claimed.lease.job_id == first
        preempt(database, claimed.lease)
    with database.read() as session:
        assert repository.queue_positions(session, [first, second]) == {first: 1, second: 2}


def test_a_job_that_is_not_due_comes_after_all_that_are(database: Database) -> None:
    waiting = add_job(database, priority=5, run_after=now() + 60)
    due = [add_job(database) for _ in range(2)]
    with database.read() as session:
        places = repository.queue_positions(session, [waiting, *due])
        following = repository.next_queue_position(
            session, device_class=DeviceClass.CPU, priority=0
        )
    assert places == {due[0]: 1, due[1]: 2, waiting: 3}
    assert following == 3
    assert [claimed.lease.job_id for _ in range(3) if (claimed := claim(database))] == due


def test_a_worker_claims_only_jobs_of_its_device_classes(database: Database) -> None:
    add_job(database, device_class=DeviceClass.GPU)
    assert claim(database, DeviceClass.CPU) is None
    assert claim(database, DeviceClass.GPU) is not None


def test_a_job_for_any_device_stays_with_the_class_that_claimed_it(database: Database) -> None:
    job_id = add_job(database, device_class=DeviceClass.ANY)
    claimed = claim(database, DeviceClass.GPU)
    assert claimed is not None
    preempt(database, claimed.lease)
    assert get_job(database, job_id).device_class == DeviceClass.GPU
    assert claim(database, DeviceClass.CPU) is None
    assert [attempt.device for attempt in attempts(database, job_id)] == ["gpu"]


def test_a_claim_creates_an_attempt_with_a_lease_and_an_event(database: Database) -> None:
    job_id = add_job(database, register_as="sentiment")
    claimed = claim(database)
    assert claimed is not None
    assert (claimed.lease.attempt, claimed.lease.worker) == (1, "alice")
    assert (claimed.register_as, claimed.failure_count, claimed.furthest_step) == (
        "sentiment",
        0,
        0,
    )
    row = get_job(database, job_id)
    assert (row.state, row.worker, row.attempt) == (JobState.RUNNING, "alice", 1)
    assert row.started_at is not None
    assert row.lease_expires_at is not None
    assert 55 < row.lease_expires_at - row.started_at < 65
    assert [(a.attempt, a.worker, a.host, a.pid) for a in attempts(database, job_id)] == [
        (1, "alice", "there", 11)
    ]
    [event] = events(database, job_id)
    assert (event.seq, event.kind, event.attempt) == (1, "started", 1)
    assert event.message == "Attempt 1 started on there (process 11)."


def test_a_new_attempt_starts_without_the_points_of_the_one_before(database: Database) -> None:
    job_id = add_job(database, attempt=1, step=7, stream_seq=1, total_steps=9)
    other = add_job(database, run_after=now() + 60)
    with database.write() as session:
        for each in (job_id, other):
            point = {"split": "train", "name": "loss", "step": 7, "value": 0.5}
            session.add(MetricPoint(job_id=each, seq=1, attempt=1, **point))
    claim(database)
    assert points(database, job_id) == []
    assert len(points(database, other)) == 1
    row = get_job(database, job_id)
    assert (row.step, row.total_steps, row.attempt, row.stream_seq) == (0, 9, 2, 2)


@pytest.mark.parametrize("database_kind", slow_but(KINDS, "sqlite", "postgresql"))
@pytest.mark.parametrize(
    ("processes", "jobs"), [(3, 60), pytest.param(16, 2000, marks=pytest.mark.slow)]
)
def test_concurrent_processes_claim_each_job_once(
    database: Database, settings: Settings, processes: int, jobs: int
) -> None:
    ids = {str(add_job(database)) for _ in range(jobs)}
    claims = race(settings.sqlalchemy_url, jobs=jobs, processes=processes)
    assert len({claim.process for claim in claims}) > processes // 2, "there was no race"
    assert sorted(claim.job_id for claim in claims) == sorted(ids)
    assert {claim.attempt for claim in claims} == {1}


def test_a_named_job_is_claimed_before_better_ones(database: Database) -> None:
    urgent, named = add_job(database, priority=9), add_job(database)
    claimed = claim(database, job_id=named)
    assert claimed is not None
    assert claimed.lease.job_id == named
    assert [(a.attempt, a.worker) for a in attempts(database, named)] == [(1, "alice")]
    assert get_job(database, urgent).state == JobState.QUEUED


@pytest.mark.parametrize(
    "changes",
    [
        {"run_after": now() + 60},
        {"device_class": DeviceClass.GPU},
        {"state": JobState.SUCCEEDED, "finished_at": now()},
    ],
    ids=["not due", "other device", "ended"],
)
def test_a_named_job_is_claimed_only_if_it_could_be_anyway(
    database: Database, changes: dict[str, Any]
) -> None:
    named, other = add_job(database, **changes), add_job(database)
    assert claim(database, job_id=named) is None
    assert claim(database, job_id=new_id()) is None
    assert attempts(database, named) == []
    assert get_job(database, other).state == JobState.QUEUED


def test_a_named_job_is_claimed_once(database: Database) -> None:
    named = add_job(database)
    assert claim(database, job_id=named) is not None
    assert claim(database, job_id=named, owner=BOB) is None
    assert [attempt.worker for attempt in attempts(database, named)] == ["alice"]


def test_a_running_job_is_not_claimed(database: Database) -> None:
    add_job(database)
    assert claim(database) is not None
    assert claim(database, owner=BOB) is None
