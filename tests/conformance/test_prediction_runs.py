"""Prediction runs have the same life cycle and the same queue as jobs."""

from uuid import UUID

import pytest

from app.database.base import new_id, now
from app.database.engines import Database
from app.jobs import repository as jobs
from app.jobs.errors import JobNotFound
from app.predictions import repository, service
from app.predictions.errors import PredictionRunNotFinished, PredictionRunNotFound
from app.queue import checkpoints, dispatch, heartbeats, leases
from app.queue.enums import DeviceClass, JobKind, JobState
from app.queue.fencing import ClaimedJob, LeaseLost
from app.queue.transitions import PermanentFailure, RetryableFailure, Succeeded
from app.resources import Resources
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from app.storage.tables import RESULTS_KIND
from lora_core.specs.predict import PredictDataSpec, PredictSpec
from tests.job_rows import (
    BOB,
    add_job,
    claim_next,
    dump_tables,
    get_job,
    get_state,
    preempt,
    update_job,
)

SPEC = PredictSpec(model="sentiment:1", data=PredictDataSpec(source="texts:1"))
LOST = RetryableFailure("lost_worker", "The worker that ran it is gone.", 0)
SUMMARY = {"rows": 700, "cut": 0, "predicted": {"good": 700}}


def add_run(database: Database, **changes: object) -> UUID:
    """A queued prediction run that is due."""
    fixed = {
        "kind": JobKind.PREDICTION,
        "method": "predict",
        "base": SPEC.model,
        "total_steps": 700,
    }
    return add_job(database, spec=SPEC.model_dump(mode="json"), **{**fixed, **changes})


def renew(database: Database, claimed: ClaimedJob, step: int) -> bool:
    with database.write() as session:
        renewal = leases.renew_lease(session, claimed.lease, step=step)
    return renewal is not None


def save(database: Database, claimed: ClaimedJob, step: int) -> None:
    """Store a checkpoint with the predictions for the first rows."""
    with database.write() as session:
        renewal = leases.renew_lease(session, claimed.lease, step=step, reserve=1)
        assert renewal is not None
        ref = ArtifactRef(f"checkpoints/{claimed.lease.job_id}/a1/step-{step}", "ab", 9)
        checkpoints.record_and_rotate_checkpoints(
            session, claimed.lease, step=step, ref=ref, seq=renewal.first_seq
        )


def succeed(database: Database, claimed: ClaimedJob) -> None:
    with database.write() as session:
        run_id = claimed.lease.job_id
        ref = ArtifactRef(f"predictions/{run_id}/a{claimed.lease.attempt}", "cd", 9)
        made = artifacts.add_artifact(session, job_id=run_id, kind=RESULTS_KIND, ref=ref)
        leases.finish_attempt(session, claimed.lease, Succeeded(made.id, SUMMARY))


def expire(database: Database, claimed: ClaimedJob) -> bool:
    update_job(database, claimed.lease.job_id, lease_expires_at=1.0)
    with database.write() as session:
        run_id, attempt = claimed.lease.job_id, claimed.lease.attempt
        expired = leases.expire_attempt(
            session, run_id, attempt=attempt, failure=LOST, max_failures=3
        )
    return expired


def cancel(database: Database, run_id: UUID) -> JobState:
    with database.write() as session:
        return JobState(service.cancel_run(session, run_id=run_id).state)


def test_both_kinds_share_one_queue(database: Database) -> None:
    late = add_run(database, created_at=now() - 1)
    early = add_job(database, created_at=now() - 5)
    urgent = add_run(database, priority=1)
    claims = [claim_next(database) for _ in range(3)]
    assert [(each.lease.job_id, each.kind) for each in claims] == [
        (urgent, JobKind.PREDICTION),
        (early, JobKind.TRAINING),
        (late, JobKind.PREDICTION),
    ]
    assert claims[0].spec == SPEC.model_dump(mode="json")


def test_a_lost_run_resumes_and_the_old_worker_writes_nothing(
    database: Database,
) -> None:
    run_id = add_run(database)
    first = claim_next(database)
    save(database, first, 256)
    assert renew(database, first, 400)
    assert expire(database, first)
    second = claim_next(database, BOB)
    assert (second.lease.job_id, second.lease.attempt) == (run_id, 2)
    assert second.checkpoint is not None
    assert second.checkpoint.step == 256
    row = get_job(database, run_id)
    assert (row.step, row.total_steps) == (256, 700)
    before = dump_tables(database)
    assert not renew(database, first, 500)
    with pytest.raises(LeaseLost):
        succeed(database, first)
    assert dump_tables(database) == before
    succeed(database, second)
    with pytest.raises(LeaseLost):
        succeed(database, second)
    row = get_job(database, run_id)
    assert (row.state, row.summary) == (JobState.SUCCEEDED, SUMMARY)


def test_a_run_without_progress_fails_with_the_last_allowed_failure(
    database: Database,
) -> None:
    run_id = add_run(database)
    for _ in range(3):
        assert expire(database, claim_next(database))
    row = get_job(database, run_id)
    assert (row.state, row.error_code) == (JobState.FAILED, "lost_worker")


def test_a_preempted_run_counts_no_failure(database: Database) -> None:
    run_id = add_run(database)
    preempt(database, claim_next(database).lease)
    row = get_job(database, run_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 0)


def test_a_queued_run_is_cancelled_and_a_running_one_is_requested_to_stop(
    database: Database,
) -> None:
    run_id = add_run(database)
    assert cancel(database, run_id) is JobState.CANCELLED
    run_id = add_run(database)
    claimed = claim_next(database)
    assert cancel(database, run_id) is JobState.RUNNING
    with database.write() as session:
        renewal = leases.renew_lease(session, claimed.lease, step=1)
    assert renewal is not None
    assert renewal.cancel_requested
    assert expire(database, claimed)  # there is no owner to stop it
    assert get_state(database, run_id) is JobState.CANCELLED


def test_each_kind_is_found_only_by_its_own_functions(database: Database) -> None:
    run_id, job_id = add_run(database), add_job(database)
    with database.read() as session:
        assert repository.get_run(session, run_id).id == run_id
        with pytest.raises(PredictionRunNotFound):
            repository.get_run(session, job_id)
        with pytest.raises(JobNotFound):
            jobs.get_training_job(session, run_id)
        runs = repository.list_runs(session, after=None, limit=9).jobs
        assert [each.id for each in runs] == [run_id]
        assert [each.id for each in jobs.list_jobs(session, after=None, limit=9).jobs] == [job_id]
        assert jobs.queue_positions(session, [run_id, job_id]) == {run_id: 1, job_id: 2}
    with pytest.raises(PredictionRunNotFound):
        cancel(database, job_id)
    assert get_state(database, job_id) is JobState.QUEUED


def test_only_a_finished_run_is_deleted(database: Database, resources: Resources) -> None:
    def delete(run_id: UUID) -> None:
        with database.write() as session:
            service.delete_run(session, run_id=run_id, store=resources.store)

    run_id = add_run(database)
    with pytest.raises(PredictionRunNotFinished, match="is queued"):
        delete(run_id)
    succeed(database, claim_next(database))
    with database.write() as session, pytest.raises(JobNotFound):
        jobs.delete_finished_training_job(session, run_id)
    delete(run_id)
    with pytest.raises(PredictionRunNotFound):
        delete(run_id)
    with pytest.raises(PredictionRunNotFound):
        delete(new_id())


def test_runs_are_dispatched_and_owned_like_jobs(database: Database) -> None:
    run_id = add_run(database, device_class=DeviceClass.ANY)
    with database.write() as session:
        assert dispatch.take_due_for_dispatch(session, redispatch_seconds=30) == [
            dispatch.JobTask(run_id, DeviceClass.ANY)
        ]
    claimed = claim_next(database)
    with database.read() as session:
        [running] = heartbeats.list_running_jobs(session)
    assert (running.job_id, running.attempt) == (run_id, 1)
    preempt(database, claimed.lease)
    update_job(database, run_id, run_after=now() - 100)
    with database.write() as session:
        assert dispatch.fail_queue_timeouts(session, queue_seconds=50) == [run_id]
    assert get_job(database, run_id).error_message == "Waited in the queue for over 50 s."


def test_a_failure_of_the_file_is_final(database: Database) -> None:
    run_id = add_run(database)
    claimed = claim_next(database)
    with database.write() as session:
        result = PermanentFailure("reserved_column", "texts.csv has a column.", {"column": "x"})
        leases.finish_attempt(session, claimed.lease, result)
    row = get_job(database, run_id)
    assert (row.state, row.error_code, row.failures_counted) == (
        JobState.FAILED, "reserved_column", 0,
    )  # fmt: skip
