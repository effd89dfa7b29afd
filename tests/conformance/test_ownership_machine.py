"""Whatever order things happen in: each job has one owner at a time and one ending."""

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

from app.database.base import new_id
from app.database.clock import now
from app.database.engines import Database
from app.queue import checkpoints, dispatch, leases
from app.queue.fencing import Lease, Owner
from app.queue.states import JobState, Lane, Outcome
from app.queue.tables import Attempt, Job, JobEvent, MetricPoint
from app.queue.transitions import Cancelled, Ending, Failed, Preempted, Retry, Succeeded, Waiting
from app.storage import repository as artifacts
from app.storage.store import ArtifactRef
from app.storage.tables import Artifact
from tests.job_rows import ALICE, BOB, add_job, change

MAX_FAILURES = 3
LOST = Retry("lost_worker", "Lost.", backoff_seconds=0)
ENDINGS: list[Ending] = [
    Failed("code", "Failed."),
    Cancelled(),
    Preempted(),
    Retry("crashed", "Crashed.", backoff_seconds=0),
    Waiting("storage_unavailable", "The disk is full.", seconds=0),
]


@dataclass
class Known:
    """What a job must look like."""

    priority: int
    state: JobState = JobState.QUEUED
    attempt: int = 0
    owner: str | None = None
    failures: int = 0
    step: int = 0
    furthest: int = 0  # step that an ended attempt reached
    cancel: bool = False
    overdue: bool = False
    saved: list[int] = field(default_factory=list)  # steps of the checkpoints that count
    points: list[int] = field(default_factory=list)  # steps on the curve
    waits: bool = False  # for disk, storage or hub

    def end(self, state: JobState) -> None:
        self.state, self.owner, self.overdue = state, None, False
        self.furthest = max(self.furthest, self.step)

    def count_failure(self) -> None:
        """Before it ends. Progress forgives what came before."""
        self.failures = 1 if self.step > self.furthest else self.failures + 1

    def wait_again(self) -> None:
        self.end(JobState.CANCELLED if self.cancel else JobState.QUEUED)


class Ownership(RuleBasedStateMachine):
    """Two workers and the service on one database; leases are kept and used long after."""

    database: Database
    leases = Bundle("leases")

    @initialize()
    def empty(self) -> None:
        self.jobs: dict[UUID, Known] = {}
        with self.database.write() as session:
            session.execute(delete(Job))
            session.execute(delete(Artifact))
            session.commit()

    def holder(self, lease: Lease) -> Known | None:
        """The job, if the lease still counts."""
        known = self.jobs[lease.job_id]
        held = known.attempt == lease.attempt and known.owner == lease.worker
        return known if held else None

    @rule(priority=st.integers(-1, 1))
    def submit(self, priority: int) -> None:
        hinted = {"dispatched_at": now() - 1000}
        self.jobs[add_job(self.database, priority=priority, **hinted)] = Known(priority)

    @rule(target=leases, owner=st.sampled_from([ALICE, BOB]))
    def claim(self, owner: Owner) -> Any:
        queued = [known for known in self.jobs.values() if known.state is JobState.QUEUED]
        with self.database.write() as session:
            claimed = leases.claim(
                session, owner=owner, lane=Lane.CPU, device="cpu", lease_seconds=600
            )
            session.commit()
        assert (claimed is None) == (not queued)
        if claimed is None:
            return multiple()
        known = self.jobs[claimed.lease.job_id]
        assert known.state is JobState.QUEUED
        assert known.priority == max(each.priority for each in queued)
        known.state, known.owner, known.attempt = JobState.RUNNING, owner.id, known.attempt + 1
        assert (claimed.lease.attempt, claimed.failures) == (known.attempt, known.failures)
        assert (claimed.waited_seconds is not None) == known.waits
        begins = claimed.checkpoint.step if claimed.checkpoint else 0
        assert begins == (known.saved[-1] if known.saved else 0)
        known.points = [step for step in known.points if step <= begins]
        known.step = begins
        assert claimed.furthest == known.furthest
        return claimed.lease

    @rule(lease=leases)
    def log(self, lease: Lease) -> None:
        """A step further, with a point on the curve."""
        known = self.jobs[lease.job_id]
        step = max([0, *known.points, *known.saved]) + 1
        with self.database.write() as session:
            beat = leases.beat(session, lease, step=step, reserve=1)
            if beat is not None:
                place = {"job_id": lease.job_id, "seq": beat.first_seq, "attempt": lease.attempt}
                curve = {"split": "train", "name": "loss", "step": step, "value": 0.5}
                session.add(MetricPoint(**place, **curve))
                session.commit()
        assert (beat is None) == (self.holder(lease) is None)
        if beat is not None:
            known.points.append(step)
            known.step, known.overdue = step, False

    @rule(lease=leases)
    def save(self, lease: Lease) -> None:
        """A checkpoint of the last step."""
        known = self.jobs[lease.job_id]
        if not known.points or known.points[-1] in known.saved:
            return
        step = known.points[-1]
        ref = ArtifactRef(f"checkpoints/{lease.job_id}/a{lease.attempt}/step-{step}", "0" * 64, 1)
        with self.database.write() as session:
            beat = leases.beat(session, lease, step=step, reserve=1)
            if beat is not None:
                checkpoints.add(session, lease, step=step, ref=ref, seq=beat.first_seq)
                session.commit()
        assert (beat is None) == (self.holder(lease) is None)
        if beat is not None:
            known.saved = [*known.saved, step][-checkpoints.KEPT :]
            known.failures, known.waits, known.overdue = 0, False, False
            known.step = step

    @rule(lease=leases)
    def find_damage(self, lease: Lease) -> None:
        """The newest checkpoint turns out to be bad; the run goes back to the one before."""
        known = self.jobs[lease.job_id]
        with self.database.write() as session:
            newest = checkpoints.rewind(session, lease.job_id) if self.holder(lease) else None
            if newest is None or newest.attempt == lease.attempt:  # it is read at the start alone
                return
            rewound = checkpoints.reject(session, lease, newest, "odd bytes")
            session.commit()
        assert rewound is not None
        known.saved.pop()
        begins = known.saved[-1] if known.saved else 0
        assert begins == (rewound.checkpoint.step if rewound.checkpoint else 0)
        known.points = [step for step in known.points if step <= begins]
        known.step = begins

    @rule()
    def remind(self) -> None:
        """Every job that waits is told of once; then its hint is fresh."""
        waiting = {each for each, known in self.jobs.items() if known.state is JobState.QUEUED}
        with self.database.write() as session:
            told = {job_id for job_id, _ in dispatch.take_due(session, hint_seconds=600)}
            again = dispatch.take_due(session, hint_seconds=600)
            session.commit()
        assert told <= waiting
        assert again == []

    @rule(lease=leases, reserve=st.integers(0, 3))
    def beat(self, lease: Lease, reserve: int) -> None:
        known = self.holder(lease)
        with self.database.write() as session:
            answer = leases.beat(session, lease, step=1, reserve=reserve)
            session.commit()
        assert (answer is None) == (known is None)
        if answer is not None and known is not None:
            known.step, known.overdue = 1, False
            assert answer.cancel_requested == known.cancel

    @rule(lease=leases)
    def pause(self, lease: Lease) -> None:
        """The owner sleeps past its lease, and may wake up later."""
        if known := self.holder(lease):
            known.overdue = True
            change(self.database, lease.job_id, lease_expires_at=now() - 1)

    @rule(lease=leases, known_gone=st.booleans())
    def expire(self, lease: Lease, known_gone: bool) -> None:
        known = self.jobs[lease.job_id]
        runs = known.state is JobState.RUNNING and known.attempt == lease.attempt
        with self.database.write() as session:
            expired = leases.expire(
                session,
                lease.job_id,
                seen_attempt=lease.attempt,
                lost=LOST,
                max_failures=MAX_FAILURES,
                gone=lease.worker if known_gone else None,
            )
            session.commit()
        assert expired == (runs and (known.overdue or known_gone))
        if expired:
            known.count_failure()
            known.waits = False
            known.wait_again()
            if known.failures >= MAX_FAILURES and not known.cancel:
                known.end(JobState.FAILED)

    @rule(data=st.data())
    def request_cancel(self, data: st.DataObject) -> None:
        running = [each for each, known in self.jobs.items() if known.owner]
        if running:
            job_id = data.draw(st.sampled_from(running))
            self.jobs[job_id].cancel = True
            change(self.database, job_id, cancel_requested_at=now())

    @rule(lease=leases, ending=st.sampled_from(ENDINGS))
    def fail(self, lease: Lease, ending: Ending) -> None:
        known = self.holder(lease)
        with self.database.write() as session:
            done = leases.finish(session, lease, ending)
            session.commit()
        assert done == (known is not None)
        if known is None:
            return
        if isinstance(ending, Failed):
            known.end(JobState.FAILED)
        elif isinstance(ending, Cancelled):
            known.end(JobState.CANCELLED)
        else:
            if isinstance(ending, Retry):
                known.count_failure()
            known.waits = isinstance(ending, Waiting)
            known.wait_again()

    @rule(lease=leases)
    def succeed(self, lease: Lease) -> None:
        known = self.holder(lease)
        ref = ArtifactRef(key=f"jobs/{new_id()}", manifest_sha256="0" * 64, bytes=1)
        with self.database.write() as session:
            artifact = artifacts.add(session, job_id=lease.job_id, kind="model", ref=ref)
            done = leases.finish(session, lease, Succeeded(artifact.id, {}))
            if done:
                session.commit()
        assert done == (known is not None)
        if known is not None:
            known.end(JobState.SUCCEEDED)

    @invariant()
    def rows_are_as_expected(self) -> None:
        with self.database.read() as session:
            rows = session.scalars(select(Job)).all()
            tried = session.scalars(select(Attempt)).all()
            made = session.scalars(select(Artifact.job_id)).all()
            told = session.execute(select(JobEvent.job_id, JobEvent.seq)).all()
            curve = session.execute(select(MetricPoint.job_id, MetricPoint.step)).all()
        assert len(rows) == len(self.jobs)
        for row in rows:
            known = self.jobs[row.id]
            assert (row.state, row.attempt, row.worker, row.failures_counted) == (
                known.state,
                known.attempt,
                known.owner,
                known.failures,
            )
            assert sorted(step for id_, step in curve if id_ == row.id) == known.points
            own = [attempt for attempt in tried if attempt.job_id == row.id]
            assert sorted(each.attempt for each in own) == list(range(1, row.attempt + 1))
            assert sum(attempt.ended_at is None for attempt in own) == (row.state == "running")
            succeeded = sum(attempt.outcome == Outcome.SUCCEEDED for attempt in own)
            assert succeeded == (row.state == JobState.SUCCEEDED) == made.count(row.id)
            assert (row.artifact_id is not None) == bool(succeeded)
            assert max((seq for id_, seq in told if id_ == row.id), default=0) <= row.stream_seq


def run_machine(database: Database, *, examples: int) -> None:
    if database.write_engine.name == "sqlite":
        raw = database.write_engine.raw_connection()
        raw.cursor().execute("PRAGMA synchronous=OFF")  # thousands of commits, none to survive
        raw.close()
    machine = type("Machine", (Ownership,), {"database": database})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_every_order_of_events_keeps_the_promises(database: Database) -> None:
    run_machine(database, examples=15)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_very_many_orders_of_events_keep_the_promises(
    database: Database, database_kind: str
) -> None:
    run_machine(database, examples=10_000 if database_kind == "sqlite" else 500)
