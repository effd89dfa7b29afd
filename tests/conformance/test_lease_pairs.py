"""Each operation after each other one, of two workers, a reconciler and a user with own clocks.

The random machine of `test_lease_state_machine` finds long histories; this test is certain to try
each pair, with the same expectations. `pytest -rP` shows the pairs that were covered.
"""

import inspect
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import ColumnElement, delete, insert, select, update

from app import queue
from app.database.base import now
from app.database.engines import Database
from app.queue import dispatch, heartbeats
from app.queue.enums import DeviceClass, JobState
from app.queue.fencing import Lease, WorkerIdentity
from app.queue.tables import Attempt, Checkpoint, Job, JobEvent, MetricPoint, Worker
from app.queue.transitions import (
    AttemptResult,
    Cancelled,
    InfrastructureUnavailable,
    Paused,
    PermanentFailure,
    Preempted,
    RetryableFailure,
)
from app.storage.tables import Artifact
from tests.conformance.conftest import on_sqlite_first
from tests.conformance.test_lease_state_machine import ExpectedJob, LeaseMachine, without_fsync
from tests.job_rows import ALICE, BOB

TABLES: tuple[Any, ...] = (Job, Attempt, Checkpoint, JobEvent, MetricPoint, Worker)
CAROL = replace(BOB, id="carol", pid=33)
PAGE = Path(__file__).parents[2] / "docs/explanation/life-of-a-job.md"
OWN_CLOCKS = {  # seconds off
    "alice": -86_400.0,
    "bob": 86_400.0,
    "reconciler": 3_600.0,
    "user": -3_600.0,
}
READS = "It writes nothing."
LEFT_OUT = {  # functions of `app.queue` that are part of no operation
    "count_active_jobs": READS,
    "count_worker_slots": READS,
    "has_other_live_worker": READS,
    "has_worker_ended_attempt": READS,
    "list_running_jobs": READS,
    "seconds_since_host_heartbeat": READS,
    "inherit_metric_points": "It writes to a job that is being submitted, which nobody else sees.",
}


class Table(LeaseMachine):
    """A job on which both workers have a lease, at most one of which is valid; and a bystander,
    which runs on a third worker all the time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.empty()
        self.held: dict[str, Lease] = {}
        self.newest: Lease | None = None  # what a reconciler reads from the row
        self.silent: dict[str, bool] = {}  # workers with a row: no heartbeat for long?
        self.run_twice(CAROL, CAROL)
        (self.bystander,) = self.jobs

    def remember(self) -> None:
        """Remember everything but the bystander, for `restore`."""
        self.start = deepcopy((self.jobs, self.held, self.newest, self.silent))
        with self.database.read() as session:
            self.rows = {
                table: [
                    row._asdict()
                    for row in session.execute(
                        select(table.__table__).where(~self.of_bystander(table))
                    )
                ]
                for table in TABLES
            }

    def restore(self) -> None:
        """Go back to what was remembered, which is faster than doing it all again."""
        self.jobs, self.held, self.newest, self.silent = deepcopy(self.start)
        with self.database.write() as session:
            for table in (Job, Worker):
                session.execute(delete(table).where(~self.of_bystander(table)))
            session.execute(delete(Artifact))
            for table, rows in self.rows.items():
                session.execute(insert(table.__table__), rows)

    def of_bystander(self, table: Any) -> ColumnElement[bool]:
        """Return the condition for its rows in a table."""
        if table is Worker:
            return Worker.id == CAROL.id
        job_id = Job.id if table is Job else table.job_id
        return job_id == self.bystander

    def rows_of_bystander(self) -> list[tuple[Any, ...]]:
        """Return everything that is stored about it."""
        with self.database.read() as session:
            return [
                tuple(row)
                for table in TABLES
                for row in session.execute(
                    select(table.__table__)
                    .where(self.of_bystander(table))
                    .order_by(*table.__table__.primary_key)
                )
            ]

    def run_twice(self, first: WorkerIdentity, second: WorkerIdentity) -> None:
        """Submit a job; one worker starts it and saves a checkpoint, another one continues it."""
        for owner in (first, second):
            self.beat(owner)
        self.submit(priority=0)
        self.claim_as(first)
        self.log(lease=self.held[first.id])
        self.save(lease=self.held[first.id])
        self.fail(lease=self.held[first.id], result=Preempted())
        self.claim_as(second)
        self.log(lease=self.held[second.id])

    def claim_as(self, owner: WorkerIdentity) -> None:
        claimed = self.claim(owner=owner)
        if isinstance(claimed, Lease):
            self.held[owner.id] = self.newest = claimed

    def expire_newest(self, *, known_dead: bool) -> None:
        assert self.newest is not None
        self.expire(lease=self.newest, known_dead=known_dead)

    def make_due(self) -> None:
        """After a clock step, no job waits for a time."""
        with self.database.write() as session:
            dispatch.make_all_queued_jobs_due(session)
        for job in self.queued():
            job.due = True

    def time_out(self) -> None:
        """The limit of the time in the queue is over for each job that may wait no longer."""
        late = {each for each, job in self.jobs.items() if job.in_line and not job.waits}
        with self.database.write() as session:
            failed = dispatch.fail_queue_timeouts(session, queue_seconds=-1)
        assert set(failed) == late
        for each in late:
            self.jobs[each].end(JobState.FAILED)

    def show_outage(self) -> None:
        """No worker can claim, and each due job shows why."""
        with self.database.write() as session:
            dispatch.mark_waiting_for_storage(session, [DeviceClass.CPU], message="Full.")
        for job in self.queued():
            if job.in_line and not job.waits:
                job.waits = "shown"

    def clear_outage(self) -> None:
        """Jobs that met the outage in their own attempt still show it."""
        with self.database.write() as session:
            dispatch.clear_waiting_for_storage(session, [DeviceClass.CPU])
        for job in self.queued():
            if job.waits == "shown":
                job.waits = ""

    def queued(self) -> list[ExpectedJob]:
        return [job for job in self.jobs.values() if job.state is JobState.QUEUED]

    def beat(self, owner: WorkerIdentity) -> None:
        with self.database.write() as session:
            heartbeats.record_heartbeat(session, owner, draining=False, devices=["cpu"])
        self.silent[owner.id] = False

    def fall_silent(self, owner: WorkerIdentity) -> None:
        with self.database.write() as session:
            session.execute(
                update(Worker).where(Worker.id == owner.id).values(seen_at=now() - 1000)
            )
        self.silent[owner.id] = True

    def forget(self, stopped: WorkerIdentity | None = None) -> None:
        """Silent and stopped workers are deleted, unless they own a running job."""
        with self.database.write() as session:
            heartbeats.delete_stale_workers(session, stale_after_seconds=900, stopped=stopped)
        owners = {job.owner for job in self.jobs.values()}
        for each, silent in list(self.silent.items()):
            if each not in owners and (silent or (stopped and each == stopped.id)):
                del self.silent[each]

    def rows_are_as_expected(self) -> None:
        super().rows_are_as_expected()
        with self.database.read() as session:
            assert set(session.scalars(select(Worker.id))) == self.silent.keys()


class Operation(NamedTuple):
    """What one of them does."""

    actor: str
    name: str
    run: Callable[[Table], Any]

    def __str__(self) -> str:
        return f"{self.actor} {self.name}"


RESULTS: dict[str, AttemptResult] = {
    "fails": PermanentFailure("code", "Failed."),
    "crashes": RetryableFailure("crashed", "Crashed.", backoff_seconds=0),
    "stops": Preempted(),
    "pauses": Paused(),
    "cancels": Cancelled(),
    "waits": InfrastructureUnavailable("storage_unavailable", "The disk is full.", seconds=60),
}


def end_attempt(table: Table, *, owner: WorkerIdentity, name: str) -> None:
    table.fail(lease=table.held[owner.id], result=RESULTS[name])


def operations_of_a_worker(owner: WorkerIdentity) -> Iterator[Operation]:
    def lease(table: Table) -> Lease:
        return table.held[owner.id]

    yield Operation(owner.id, "claims", lambda t: t.claim_as(owner))
    yield Operation(owner.id, "renews", lambda t: t.renew(lease=lease(t), reserve=2))
    yield Operation(owner.id, "logs", lambda t: t.log(lease=lease(t)))
    yield Operation(owner.id, "saves", lambda t: t.save(lease=lease(t)))
    yield Operation(owner.id, "resolves", lambda t: t.store_spec(lease=lease(t)))
    yield Operation(owner.id, "differs", lambda t: t.record_exactness(lease=lease(t), exact=False))
    yield Operation(owner.id, "rejects", lambda t: t.reject_checkpoint(lease=lease(t)))
    yield Operation(owner.id, "succeeds", lambda t: t.succeed(lease=lease(t)))
    for name in RESULTS:
        yield Operation(owner.id, name, partial(end_attempt, owner=owner, name=name))
    yield Operation(owner.id, "beats", lambda t: t.beat(owner))
    yield Operation(owner.id, "shows an outage", lambda t: t.show_outage())
    yield Operation(owner.id, "leaves", lambda t: t.forget(stopped=owner))


OPERATIONS = [
    *operations_of_a_worker(ALICE),
    *operations_of_a_worker(BOB),
    Operation("reconciler", "expires", lambda t: t.expire_newest(known_dead=False)),
    Operation("reconciler", "buries", lambda t: t.expire_newest(known_dead=True)),
    Operation("reconciler", "dispatches", lambda t: t.redispatch()),
    Operation("reconciler", "makes due", lambda t: t.make_due()),
    Operation("reconciler", "times out", lambda t: t.time_out()),
    Operation("reconciler", "clears an outage", lambda t: t.clear_outage()),
    Operation("reconciler", "forgets", lambda t: t.forget()),
    Operation("user", "cancels", lambda t: t.cancel(t.held["bob"].job_id)),
    Operation("user", "pauses", lambda t: t.pause(t.held["bob"].job_id)),
    Operation("user", "resumes", lambda t: t.resume(t.held["bob"].job_id)),
]


def owned(table: Table) -> None:
    """Alice owns the job; Bob still has the lease of the attempt before, and is silent."""
    table.run_twice(BOB, ALICE)
    table.fall_silent(BOB)


def overdue(table: Table) -> None:
    """The same, and the lease is over: Alice froze, or the clock of the database jumped."""
    owned(table)
    table.freeze(lease=table.held["alice"])
    table.fall_silent(ALICE)


def queued(table: Table) -> None:
    """Nobody owns the job; both still have a lease of theirs."""
    owned(table)
    table.fail(lease=table.held["alice"], result=Preempted())


STARTS = (
    owned,
    pytest.param(overdue, marks=pytest.mark.slow),
    pytest.param(queued, marks=pytest.mark.slow),
)


@contextmanager
def clock_of(actor: str) -> Iterator[None]:
    """Let Python's clocks be as far off as those of the actor's machine."""
    seconds = OWN_CLOCKS[actor]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("time", "monotonic"):
            patch.setattr(time, name, _shifted(getattr(time, name), seconds))
        yield


def _shifted(clock: Callable[[], float], seconds: float) -> Callable[[], float]:
    return lambda: clock() + seconds


def started(database: Database, start: Callable[[Table], None]) -> Table:
    without_fsync(database)
    table: Table = type("TableOnDatabase", (Table,), {"database": database})()
    start(table)
    table.remember()
    return table


def run_pairs(table: Table, run: Callable[[Table, Operation, Operation], None]) -> None:
    """Run each pair from the same start, and compare the rows with what is expected."""
    bystander = table.rows_of_bystander()
    covered = set()
    for first, second in product(OPERATIONS, repeat=2):
        table.restore()
        try:
            run(table, first, second)
            assert table.rows_of_bystander() == bystander
        except Exception as error:
            error.add_note(f"{first}, then {second}")
            raise
        covered.add((str(first), str(second)))
    for first in OPERATIONS:
        after = [str(second) for second in OPERATIONS if (str(first), str(second)) in covered]
        print(f"{first}, then: {', '.join(after)}")  # noqa: T201 - what `-rP` shows
    assert len(covered) == len(OPERATIONS) ** 2


def one_after_the_other(table: Table, first: Operation, second: Operation) -> None:
    for operation in (first, second):
        with clock_of(operation.actor):
            operation.run(table)
    table.rows_are_as_expected()


@pytest.mark.slow  # test_lease_state_machine.py is the small form
@pytest.mark.timeout(900)
@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.__name__)
@on_sqlite_first  # the state machine also runs on PostgreSQL, where this takes minutes
def test_every_pair_of_operations(database: Database, start: Callable[[Table], None]) -> None:
    run_pairs(started(database, start), one_after_the_other)


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_every_function_of_the_queue_is_part_of_an_operation(database: Database) -> None:
    table = started(database, owned)
    called = set()
    for operation in OPERATIONS:
        table.restore()
        sys.setprofile(lambda frame, _event, _argument: called.add(frame.f_code))
        try:
            operation.run(table)
        finally:
            sys.setprofile(None)
    functions = {
        name: function
        for module in pkgutil.iter_modules(queue.__path__, f"{queue.__name__}.")
        for name, function in inspect.getmembers(import_module(module.name), inspect.isfunction)
        if function.__module__ == module.name and not name.startswith("_")
        if "session" in inspect.signature(function).parameters
    }
    left_out = {name for name, function in functions.items() if function.__code__ not in called}
    assert left_out == LEFT_OUT.keys()


def test_the_page_says_how_many_pairs_are_covered() -> None:
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    count = len(OPERATIONS)
    assert f"{count**2} ordered pairs of {count} operations" in page
