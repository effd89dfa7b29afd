"""Old jobs and sweeps are deleted with all their rows, except those that somebody may miss."""

import math
from collections.abc import Callable
from uuid import UUID

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import InstrumentedAttribute

from app.auth.tables import LOCAL_KEY_ID
from app.database.base import now
from app.queue.enums import JobState
from app.queue.tables import Attempt, Job
from app.resources import Resources
from app.retention import expiry
from app.retention.files import DataKind
from app.retention.service import collect_garbage
from app.sweeps.states import SweepState
from app.sweeps.tables import Sweep, Trial
from tests.app.retention.conftest import DAY, World
from tests.slow import on_both_databases

Keeping = Callable[..., Resources]
OLD, NEW = 401, 399  # days; the default limit is 400


def ids(world: World, column: InstrumentedAttribute[UUID]) -> set[UUID]:
    with world.database.read() as session:
        return set(session.scalars(select(column)))


def add_sweep(world: World, *jobs: UUID, days: float, state: str = SweepState.FINISHED) -> UUID:
    """Store a sweep with a trial for each job, which finished this many days ago."""
    sweep = Sweep(
        created_by=LOCAL_KEY_ID,
        user_metadata={},
        job={},
        space=[],
        strategy={},
        resolved_inputs={},
        objective="accuracy",
        state=state,
        finished_at=now() - days * DAY if state == SweepState.FINISHED else None,
    )
    with world.database.write() as session:
        session.add(sweep)
        session.flush()
        for number, job_id in enumerate(jobs, start=1):
            trial = {"settings": {}, "job_columns": {}, "trial_sha256": "0" * 64}
            session.add(Trial(sweep_id=sweep.id, number=number, rung=0, job_id=job_id, **trial))
    return sweep.id


@on_both_databases
def test_jobs_expire_with_their_rows_and_files(world: World) -> None:
    old, new = world.job(days=OLD), world.job(JobState.FAILED, days=NEW)
    world.checkpoint(old)
    with world.database.write() as session:
        session.add(Attempt(job_id=old, attempt=1, worker="w", host="h", pid=1, environment={}))
    run_id = world.results(days=OLD)
    planned = collect_garbage(world.resources, dry_run=True)
    done = collect_garbage(world.resources)
    assert {each.key for each in planned.removals} == {each.key for each in done.removals}
    counts = {total.kind: total.count for total in done.totals()}
    assert counts == {"job": 2, "checkpoint": 1, "result": 1}
    assert {each.key for each in done.removals if each.kind is DataKind.JOB} == {
        str(old),
        str(run_id),
    }
    assert ids(world, Job.id) == {new}
    assert ids(world, Attempt.job_id) == set()
    assert world.left() == set()
    assert done.freed_bytes() == sum(t.bytes for t in done.totals() if t.kind != "job")


def test_jobs_that_somebody_may_miss_are_kept(world: World, keeping: Keeping) -> None:
    """Also when they are old: with a model, tags or notes, and those of an active retry."""
    registered, unregistered = world.job(days=OLD), world.job(days=OLD)
    world.version(world.model(registered))
    world.model(unregistered)
    marked = [world.job(days=OLD, tags=["paper"]), world.job(days=OLD, notes="the good one")]
    failed = world.job(JobState.FAILED, days=OLD)
    retry = world.job(JobState.QUEUED, continues=failed)
    kept = {registered, unregistered, *marked, failed, retry}
    gone = world.job(days=OLD)
    result = collect_garbage(keeping(keep_artifact_days=None))
    assert [each.key for each in result.removals] == [str(gone)]
    assert ids(world, Job.id) == kept


def test_models_of_jobs_with_tags_or_notes_are_kept(world: World) -> None:
    marked = [world.job(days=OLD, tags=["best"]), world.job(days=OLD, notes="the good one")]
    for each in marked:
        world.model(each)
    assert collect_garbage(world.resources).removals == ()
    assert ids(world, Job.id) == set(marked)


def test_kept_job_of_an_expired_sweep_is_an_ordinary_job(world: World) -> None:
    in_both, tagged = world.job(days=OLD), world.job(days=OLD, tags=["paper"])
    old = add_sweep(world, in_both, tagged, days=OLD)
    new = add_sweep(world, in_both, days=NEW)
    with world.database.write() as session:
        session.execute(update(Job).values(sweep_id=old))
    collect_garbage(world.resources)
    with world.database.read() as session:
        owners = {job.id: job.sweep_id for job in session.scalars(select(Job))}
    assert owners == {in_both: new, tagged: None}


def test_trials_are_kept_as_long_as_their_sweep(world: World) -> None:
    in_old, in_new, in_stopped, in_both = (world.job(days=OLD) for _ in range(4))
    old = add_sweep(world, in_old, in_both, days=OLD)
    new = add_sweep(world, in_new, in_both, days=NEW)
    stopped = add_sweep(world, in_stopped, days=0, state=SweepState.STOPPED)
    planned = collect_garbage(world.resources, dry_run=True)
    result = collect_garbage(world.resources)
    assert [(each.kind, each.key) for each in result.removals] == [
        (DataKind.SWEEP, str(old)),
        (DataKind.JOB, str(in_old)),
    ]
    assert [(each.key, each.bytes) for each in planned.removals] == [
        (each.key, each.bytes) for each in result.removals
    ]
    assert ids(world, Sweep.id) == {new, stopped}
    assert ids(world, Job.id) == {in_new, in_stopped, in_both}


def test_jobs_are_kept_forever_on_request(world: World, keeping: Keeping) -> None:
    job_id = world.job(days=10_000)
    assert collect_garbage(keeping(keep_job_days=None)).removals == ()
    assert ids(world, Job.id) == {job_id}


@pytest.mark.parametrize("days", [36_500.0, math.inf])
def test_a_retention_that_is_longer_than_computers_exist(
    days: float, world: World, keeping: Keeping
) -> None:
    """What other settings let expire must not stay because of it."""
    job_id = world.job(days=10_000)
    kept = keeping(keep_job_days=days, keep_delivery_days=days)
    assert collect_garbage(kept).removals == collect_garbage(kept, dry_run=True).removals == ()
    assert ids(world, Job.id) == {job_id}


@on_both_databases
def test_job_tagged_at_the_last_moment_is_kept(world: World) -> None:
    tagged, other = world.job(days=OLD), world.job(days=OLD)
    rule = expiry.JobExpiry(400)
    with world.database.read() as session:
        found = [job_id for job_id, _ in rule.find_expired(session, None).expired]
    assert set(found) == {tagged, other}
    with world.database.write() as session:
        session.get_one(Job, tagged).tags = ["paper"]
    with world.database.write() as session:
        removals = rule.delete_expired_rows(session, found)
    assert [each.key for each in removals] == [str(other)]
    assert ids(world, Job.id) == {tagged}
