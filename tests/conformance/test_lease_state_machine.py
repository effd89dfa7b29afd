"""In any order of events, each job has one owner at a time and ends once."""

from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, select

from app.database.base import JsonObject, new_id, now
from app.database.engines import Database
from app.jobs import repository
from app.queue import checkpoints, dispatch, leases
from app.queue.enums import AttemptOutcome, DeviceClass, JobState
from app.queue.fencing import Lease, LeaseLost, WorkerIdentity
from app.queue.tables import Attempt, Job, JobEvent, MetricPoint
from app.queue.transitions import (
    AttemptResult,
    Cancelled,
    InfrastructureUnavailable,
    Paused,
    PermanentFailure,
    Preempted,
    RetryableFailure,
    Succeeded,
)
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from app.storage.tables import Artifact
from tests.job_rows import ALICE, BOB, SPEC, add_job, update_job

MAX_FAILURES = 3
LOST = RetryableFailure("lost_worker", "Lost.", backoff_seconds=0)
RESULTS: list[AttemptResult] = [
    PermanentFailure("code", "PermanentFailure."),
    Cancelled(),
    Preempted(),
    Paused(),
    RetryableFailure("crashed", "Crashed.", backoff_seconds=0),
    InfrastructureUnavailable("storage_unavailable", "The disk is full.", seconds=0),
]


@dataclass
class ExpectedJob:
    """The expected state of a job."""

    priority: int
    state: JobState = JobState.QUEUED
    attempt: int = 0
    owner: str | None = None
    failures: int = 0
    step: int = 0
    furthest: int = 0  # step that an ended attempt reached
    cancel: bool = False
    pause: bool = False  # requested; a queued job with it is paused
    lease_expired: bool = False
    saved: list[int] = field(default_factory=list)  # steps of the checkpoints that count
    points: list[int] = field(default_factory=list)  # steps on the curve
    waits: str = ""  # for disk, storage or hub: "outage" in its own attempt, "shown" by a worker
    due: bool = True
    spec: JsonObject = field(default_factory=lambda: SPEC)
    exact: bool = True

    @property
    def in_line(self) -> bool:
        """Whether a worker may claim it."""
        return self.state is JobState.QUEUED and not self.pause and self.due

    def end(self, state: JobState) -> None:
        self.state, self.owner, self.lease_expired, self.waits = state, None, False, ""
        self.furthest = max(self.furthest, self.step)

    def failure_columns(self) -> None:
        """Count a failure before the attempt ends. Progress resets the count."""
        self.failures = 1 if self.step > self.furthest else self.failures + 1

    def requeue(self) -> None:
        self.end(JobState.CANCELLED if self.cancel else JobState.QUEUED)


class LeaseMachine(RuleBasedStateMachine):
    """Two workers and the service on one database; old leases are used long after they ended."""

    database: Database
    leases = Bundle("leases")

    @initialize()
    def empty(self) -> None:
        self.jobs: dict[UUID, ExpectedJob] = {}
        with self.database.write() as session:
            session.execute(delete(Job))
            session.execute(delete(Artifact))

    def owned_job(self, lease: Lease) -> ExpectedJob | None:
        """Return the expected job if the lease still owns it."""
        expected = self.jobs[lease.job_id]
        owns = expected.attempt == lease.attempt and expected.owner == lease.worker
        return expected if owns else None

    @rule(priority=st.integers(-1, 1))
    def submit(self, priority: int) -> None:
        dispatched = {"dispatched_at": now() - 1000}
        self.jobs[add_job(self.database, priority=priority, **dispatched)] = ExpectedJob(priority)

    @rule(target=leases, owner=st.sampled_from([ALICE, BOB]))
    def claim(self, owner: WorkerIdentity) -> Any:
        queued = [expected for expected in self.jobs.values() if expected.in_line]
        with self.database.write() as session:
            claimed = leases.claim_job(
                session, owner=owner, device_class=DeviceClass.CPU, device="cpu", lease_seconds=600
            )
        assert (claimed is None) == (not queued)
        if claimed is None:
            return multiple()
        expected = self.jobs[claimed.lease.job_id]
        assert expected.in_line
        assert expected.priority == max(each.priority for each in queued)
        expected.state, expected.owner, expected.attempt = (
            JobState.RUNNING,
            owner.id,
            expected.attempt + 1,
        )
        assert (claimed.lease.attempt, claimed.failure_count) == (
            expected.attempt,
            expected.failures,
        )
        assert (claimed.waited_seconds is not None) == bool(expected.waits)
        begins = claimed.checkpoint.step if claimed.checkpoint else 0
        assert begins == (expected.saved[-1] if expected.saved else 0)
        expected.points = [step for step in expected.points if step <= begins]
        expected.step = begins
        assert claimed.furthest_step == expected.furthest
        return claimed.lease

    @rule(lease=leases)
    def log(self, lease: Lease) -> None:
        """Make a step and log a point on the curve."""
        expected = self.jobs[lease.job_id]
        step = max([0, *expected.points, *expected.saved]) + 1
        with self.database.write() as session:
            renewal = leases.renew_lease(session, lease, step=step, reserve=1)
            if renewal is not None:
                place = {"job_id": lease.job_id, "seq": renewal.first_seq, "attempt": lease.attempt}
                curve = {"split": "train", "name": "loss", "step": step, "value": 0.5}
                session.add(MetricPoint(**place, **curve))
        assert (renewal is None) == (self.owned_job(lease) is None)
        if renewal is not None:
            expected.points.append(step)
            expected.step, expected.lease_expired = step, False

    @rule(lease=leases)
    def save(self, lease: Lease) -> None:
        """Store a checkpoint of the last step."""
        expected = self.jobs[lease.job_id]
        if not expected.points or expected.points[-1] in expected.saved:
            return
        step = expected.points[-1]
        ref = ArtifactRef(f"checkpoints/{lease.job_id}/a{lease.attempt}/step-{step}", "0" * 64, 1)
        with self.database.write() as session:
            renewal = leases.renew_lease(session, lease, step=step, reserve=1)
            if renewal is not None:
                checkpoints.record_and_rotate_checkpoints(
                    session, lease, step=step, ref=ref, seq=renewal.first_seq
                )
        assert (renewal is None) == (self.owned_job(lease) is None)
        if renewal is not None:
            expected.saved = [*expected.saved, step][-checkpoints.MAX_CHECKPOINTS :]
            expected.failures, expected.waits, expected.lease_expired = 0, "", False
            expected.step = step

    @rule(lease=leases)
    def reject_checkpoint(self, lease: Lease) -> None:
        """Reject the newest checkpoint; the run rewinds to the one before."""
        expected = self.jobs[lease.job_id]
        with self.database.write() as session:
            newest = (
                checkpoints.rewind_metrics_to_newest_checkpoint(session, lease.job_id)
                if self.owned_job(lease)
                else None
            )
            if newest is None or newest.attempt == lease.attempt:  # read only at the start
                session.rollback()
                return
            rewound = checkpoints.reject_checkpoint_and_rewind(session, lease, newest, "odd bytes")
        expected.saved.pop()
        begins = expected.saved[-1] if expected.saved else 0
        assert begins == (rewound.step if rewound else 0)
        expected.points = [step for step in expected.points if step <= begins]
        expected.step = begins

    @rule()
    def redispatch(self) -> None:
        """Each waiting job is dispatched once, and then not again until its interval is over."""
        waiting = {each for each, expected in self.jobs.items() if expected.in_line}
        with self.database.write() as session:
            dispatched = {
                job_id
                for job_id, *_ in dispatch.take_due_for_dispatch(session, redispatch_seconds=600)
            }
            again = dispatch.take_due_for_dispatch(session, redispatch_seconds=600)
        assert dispatched <= waiting
        assert again == []

    @rule(lease=leases, reserve=st.integers(0, 3))
    def renew(self, lease: Lease, reserve: int) -> None:
        expected = self.owned_job(lease)
        with self.database.write() as session:
            answer = leases.renew_lease(session, lease, step=1, reserve=reserve)
        assert (answer is None) == (expected is None)
        if answer is not None and expected is not None:
            expected.step, expected.lease_expired = 1, False
            assert answer.cancel_requested == expected.cancel
            assert answer.pause_requested == expected.pause

    @rule(lease=leases)
    def store_spec(self, lease: Lease) -> None:
        """Store what the attempt has resolved."""
        expected = self.owned_job(lease)
        spec = SPEC | {"resolved_by": [lease.worker, lease.attempt]}
        with (
            nullcontext() if expected else pytest.raises(LeaseLost),
            self.database.write() as session,
        ):
            leases.store_resolved_spec(session, lease, spec)
        if expected is not None:
            expected.spec = spec

    @rule(lease=leases, exact=st.booleans())
    def record_exactness(self, lease: Lease, exact: bool) -> None:
        expected = self.owned_job(lease)
        with self.database.write() as session:
            leases.record_resume_exactness(session, lease, exact=exact)
        if expected is not None:
            expected.exact = expected.exact and exact

    @rule(lease=leases)
    def freeze(self, lease: Lease) -> None:
        """The owner freezes past the end of its lease, and may continue later."""
        if expected := self.owned_job(lease):
            expected.lease_expired = True
            update_job(self.database, lease.job_id, lease_expires_at=now() - 1)

    @rule(lease=leases, known_dead=st.booleans())
    def expire(self, lease: Lease, known_dead: bool) -> None:
        expected = self.jobs[lease.job_id]
        runs = expected.state is JobState.RUNNING and expected.attempt == lease.attempt
        with self.database.write() as session:
            expired = leases.expire_attempt(
                session,
                lease.job_id,
                attempt=lease.attempt,
                failure=LOST,
                max_failures=MAX_FAILURES,
                dead_worker=lease.worker if known_dead else None,
            )
        assert expired == (runs and (expected.lease_expired or known_dead))
        if expired:
            expected.failure_columns()
            expected.requeue()
            if expected.failures >= MAX_FAILURES and not expected.cancel:
                expected.end(JobState.FAILED)

    @rule(data=st.data())
    def request_cancel(self, data: st.DataObject) -> None:
        if self.jobs:
            self.cancel(data.draw(st.sampled_from(list(self.jobs))))

    def cancel(self, job_id: UUID) -> None:
        with self.database.write() as session:
            repository.request_cancel(session, job_id)
        expected = self.jobs[job_id]
        if not expected.state.final:
            expected.cancel = True
        if expected.state is JobState.QUEUED:
            expected.end(JobState.CANCELLED)

    @rule(data=st.data())
    def request_pause(self, data: st.DataObject) -> None:
        if self.jobs:
            self.pause(data.draw(st.sampled_from(list(self.jobs))))

    def pause(self, job_id: UUID) -> None:
        with self.database.write() as session:
            repository.request_pause(session, job_id)
        expected = self.jobs[job_id]
        if not expected.state.final and not expected.cancel:
            expected.pause = True

    @rule(data=st.data())
    def request_resume(self, data: st.DataObject) -> None:
        if self.jobs:
            self.resume(data.draw(st.sampled_from(list(self.jobs))))

    def resume(self, job_id: UUID) -> None:
        expected = self.jobs[job_id]
        was_paused = expected.state is JobState.QUEUED and expected.pause
        with self.database.write() as session:
            resumed = repository.request_resume(session, job_id)
        assert resumed == was_paused
        if not expected.state.final:
            expected.pause = False
        if was_paused:
            expected.waits = ""

    @rule(lease=leases, result=st.sampled_from(RESULTS))
    def fail(self, lease: Lease, result: AttemptResult) -> None:
        expected = self.owned_job(lease)
        with (
            nullcontext() if expected else pytest.raises(LeaseLost),
            self.database.write() as session,
        ):
            leases.finish_attempt(session, lease, result)
        if expected is None:
            return
        if isinstance(result, PermanentFailure):
            expected.end(JobState.FAILED)
        elif isinstance(result, Cancelled):
            expected.end(JobState.CANCELLED)
        else:
            if isinstance(result, RetryableFailure):
                expected.failure_columns()
            expected.requeue()
            if isinstance(result, InfrastructureUnavailable):
                expected.due = result.seconds == 0
                expected.waits = "" if expected.state.final else "outage"

    @rule(lease=leases)
    def succeed(self, lease: Lease) -> None:
        expected = self.owned_job(lease)
        ref = ArtifactRef(key=f"jobs/{new_id()}", manifest_sha256="0" * 64, bytes=1)
        with (
            nullcontext() if expected else pytest.raises(LeaseLost),
            self.database.write() as session,
        ):
            artifact = artifacts.add_artifact(session, job_id=lease.job_id, kind="model", ref=ref)
            leases.finish_attempt(session, lease, Succeeded(artifact.id, {}))
        if expected is not None:
            expected.end(JobState.SUCCEEDED)

    @invariant()
    def rows_are_as_expected(self) -> None:
        with self.database.read() as session:
            rows = session.scalars(select(Job)).all()
            tried = session.scalars(select(Attempt)).all()
            made = session.scalars(select(Artifact.job_id)).all()
            events = session.execute(select(JobEvent.job_id, JobEvent.seq)).all()
            curve = session.execute(select(MetricPoint.job_id, MetricPoint.step)).all()
        assert len(rows) == len(self.jobs)
        for row in rows:
            expected = self.jobs[row.id]
            assert (row.state, row.attempt, row.worker, row.failures_counted) == (
                expected.state,
                expected.attempt,
                expected.owner,
                expected.failures,
            )
            assert row.paused == (expected.state is JobState.QUEUED and expected.pause)
            assert (row.spec, row.resume_exact) == (expected.spec, expected.exact)
            assert (row.waiting_code is not None) == bool(expected.waits)
            assert sorted(step for id_, step in curve if id_ == row.id) == expected.points
            own = [attempt for attempt in tried if attempt.job_id == row.id]
            assert sorted(each.attempt for each in own) == list(range(1, row.attempt + 1))
            assert sum(attempt.ended_at is None for attempt in own) == (row.state == "running")
            succeeded = sum(attempt.outcome == AttemptOutcome.SUCCEEDED for attempt in own)
            assert succeeded == (row.state == JobState.SUCCEEDED) == made.count(row.id)
            assert (row.artifact_id is not None) == bool(succeeded)
            assert max((seq for id_, seq in events if id_ == row.id), default=0) <= row.stream_seq


def without_fsync(database: Database) -> None:
    """Let thousands of commits be fast. None needs to survive."""
    if database.write_engine.name == "sqlite":
        raw = database.write_engine.raw_connection()
        raw.cursor().execute("PRAGMA synchronous=OFF")
        raw.close()


def run_machine(database: Database, *, examples: int) -> None:
    without_fsync(database)
    machine = type("Machine", (LeaseMachine,), {"database": database})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_invariants_hold_in_any_order_of_events(database: Database) -> None:
    run_machine(database, examples=15)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_invariants_hold_in_very_many_orders_of_events(
    database: Database, database_kind: str
) -> None:
    run_machine(database, examples=10_000 if database_kind == "sqlite" else 500)
