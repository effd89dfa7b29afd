"""Prediction runs live the life of jobs, in the same queue."""

from uuid import UUID

import pytest

from app.database.base import new_id
from app.database.clock import now
from app.database.engines import Database
from app.jobs import repository as jobs
from app.jobs.errors import JobNotFound
from app.predictions import repository, service
from app.predictions.errors import PredictionNotFinished, PredictionNotFound
from app.queue import checkpoints, dispatch, heartbeats, leases
from app.queue.fencing import Claimed
from app.queue.states import JobState, Kind, Lane
from app.queue.transitions import Failed, Retry, Succeeded
from app.resources import Resources
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from app.storage.tables import RESULTS
from lora_core.specs.predict import PredictSpec, TextsSpec
from tests.job_rows import BOB, add_job, change, everything, give_back, job, state, take

SPEC = PredictSpec(model="sentiment:1", data=TextsSpec(source="texts:1"))
LOST = Retry("lost_worker", "The worker that ran it is gone.", 0)
SUMMARY = {"rows": 700, "cut": 0, "predicted": {"good": 700}}


def add_run(database: Database, **changes: object) -> UUID:
    """A queued prediction run that is due."""
    fixed = {"kind": Kind.PREDICTION, "method": "predict", "base": SPEC.model, "total_steps": 700}
    return add_job(database, spec=SPEC.model_dump(mode="json"), **{**fixed, **changes})


def beat(database: Database, claimed: Claimed, step: int) -> bool:
    with database.write() as session:
        held = leases.beat(session, claimed.lease, step=step)
        session.commit()
    return held is not None


def save(database: Database, claimed: Claimed, step: int) -> None:
    """A beat with the answers to the first rows."""
    with database.write() as session:
        held = leases.beat(session, claimed.lease, step=step, reserve=1)
        assert held is not None
        ref = ArtifactRef(f"checkpoints/{claimed.lease.job_id}/a1/step-{step}", "ab", 9)
        checkpoints.add(session, claimed.lease, step=step, ref=ref, seq=held.first_seq)
        session.commit()


def succeed(database: Database, claimed: Claimed) -> bool:
    with database.write() as session:
        run_id = claimed.lease.job_id
        ref = ArtifactRef(f"predictions/{run_id}/a{claimed.lease.attempt}", "cd", 9)
        made = artifacts.add(session, job_id=run_id, kind=RESULTS, ref=ref)
        written = leases.finish(session, claimed.lease, Succeeded(made.id, SUMMARY))
        session.commit() if written else session.rollback()
    return written


def expire(database: Database, claimed: Claimed) -> bool:
    change(database, claimed.lease.job_id, lease_expires_at=1.0)
    with database.write() as session:
        run_id, attempt = claimed.lease.job_id, claimed.lease.attempt
        expired = leases.expire(session, run_id, seen_attempt=attempt, lost=LOST, max_failures=3)
        session.commit()
    return expired


def cancel(database: Database, run_id: UUID) -> JobState:
    with database.write() as session:
        return JobState(service.cancel(session, run_id=run_id).state)


def test_both_kinds_take_turns_in_one_queue(database: Database) -> None:
    late = add_run(database, created_at=now() - 1)
    early = add_job(database, created_at=now() - 5)
    urgent = add_run(database, priority=1)
    claims = [take(database) for _ in range(3)]
    assert [(each.lease.job_id, each.kind) for each in claims] == [
        (urgent, Kind.PREDICTION),
        (early, Kind.TRAINING),
        (late, Kind.PREDICTION),
    ]
    assert claims[0].spec == SPEC.model_dump(mode="json")


def test_a_lost_run_goes_on_from_its_rows_and_the_old_worker_writes_nothing(
    database: Database,
) -> None:
    run_id = add_run(database)
    first = take(database)
    save(database, first, 256)
    assert beat(database, first, 400)
    assert expire(database, first)
    second = take(database, BOB)
    assert (second.lease.job_id, second.lease.attempt) == (run_id, 2)
    assert second.checkpoint is not None
    assert second.checkpoint.step == 256
    row = job(database, run_id)
    assert (row.step, row.total_steps) == (256, 700)
    before = everything(database)
    assert not beat(database, first, 500)
    assert not succeed(database, first)
    assert everything(database) == before
    assert succeed(database, second)
    assert not succeed(database, second)
    row = job(database, run_id)
    assert (row.state, row.summary) == (JobState.SUCCEEDED, SUMMARY)


def test_a_run_without_new_rows_fails_with_the_last_failure_that_is_allowed(
    database: Database,
) -> None:
    run_id = add_run(database)
    for _ in range(3):
        assert expire(database, take(database))
    row = job(database, run_id)
    assert (row.state, row.error_code) == (JobState.FAILED, "lost_worker")


def test_a_run_that_is_given_back_counts_no_failure(database: Database) -> None:
    run_id = add_run(database)
    give_back(database, take(database).lease)
    row = job(database, run_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 0)


def test_a_queued_run_is_cancelled_and_a_running_one_asked(database: Database) -> None:
    run_id = add_run(database)
    assert cancel(database, run_id) is JobState.CANCELLED
    run_id = add_run(database)
    claimed = take(database)
    assert cancel(database, run_id) is JobState.RUNNING
    with database.write() as session:
        asked = leases.beat(session, claimed.lease, step=1)
        session.commit()
    assert asked is not None
    assert asked.cancel_requested
    assert expire(database, claimed)  # nobody is left to stop it
    assert state(database, run_id) is JobState.CANCELLED


def test_each_kind_is_found_by_its_own_callers_only(database: Database) -> None:
    run_id, job_id = add_run(database), add_job(database)
    with database.read() as session:
        assert repository.get(session, run_id).id == run_id
        with pytest.raises(PredictionNotFound):
            repository.get(session, job_id)
        with pytest.raises(JobNotFound):
            jobs.get(session, run_id)
        runs = repository.page(session, after=None, limit=9).jobs
        assert [each.id for each in runs] == [run_id]
        assert [each.id for each in jobs.page(session, after=None, limit=9).jobs] == [job_id]
        assert jobs.positions(session, [run_id, job_id]) == {run_id: 1, job_id: 2}
    with pytest.raises(PredictionNotFound):
        cancel(database, job_id)
    assert state(database, job_id) is JobState.QUEUED


def test_a_run_is_deleted_once_it_has_ended(database: Database, resources: Resources) -> None:
    def delete(run_id: UUID) -> None:
        with database.write() as session:
            service.delete(session, run_id=run_id, store=resources.store)

    run_id = add_run(database)
    with pytest.raises(PredictionNotFinished, match="is queued"):
        delete(run_id)
    assert succeed(database, take(database))
    with database.write() as session, pytest.raises(JobNotFound):
        jobs.remove(session, run_id)
    delete(run_id)
    with pytest.raises(PredictionNotFound):
        delete(run_id)
    with pytest.raises(PredictionNotFound):
        delete(new_id())


def test_workers_are_told_of_runs_that_wait_and_hold_them_like_jobs(database: Database) -> None:
    run_id = add_run(database, lane=Lane.ANY)
    with database.write() as session:
        assert dispatch.take_due(session, hint_seconds=30) == [(run_id, Lane.ANY)]
        session.commit()
    claimed = take(database)
    with database.read() as session:
        [held] = heartbeats.running(session)
    assert (held.job_id, held.attempt) == (run_id, 1)
    give_back(database, claimed.lease)
    change(database, run_id, run_after=now() - 100)
    with database.write() as session:
        assert dispatch.fail_overdue(session, queue_seconds=50) == [run_id]
        session.commit()
    assert job(database, run_id).error_message == "It waited in the queue for over 50 s."


def test_a_failure_of_the_file_is_final(database: Database) -> None:
    run_id = add_run(database)
    claimed = take(database)
    with database.write() as session:
        ending = Failed("column_taken", "texts.csv has a column.", {"column": "x"})
        assert leases.finish(session, claimed.lease, ending)
        session.commit()
    row = job(database, run_id)
    assert (row.state, row.error_code, row.failures_counted) == (
        JobState.FAILED, "column_taken", 0,
    )  # fmt: skip
