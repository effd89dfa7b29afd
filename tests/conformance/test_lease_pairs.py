"""Every operation after every other one, of two workers and a reconciler whose clocks differ.

The random machine of `test_lease_state_machine` finds long histories; this test is certain to try
each pair, with the same expectations. `pytest -rP` shows the pairs that were covered.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sqlalchemy import delete, insert, select

from app.database.engines import Database
from app.queue import dispatch
from app.queue.enums import JobState
from app.queue.fencing import Lease, WorkerIdentity
from app.queue.tables import Attempt, Checkpoint, Job, JobEvent, MetricPoint
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
from tests.conformance.test_lease_state_machine import LeaseMachine, without_fsync
from tests.job_rows import ALICE, BOB

TABLES: tuple[Any, ...] = (Job, Attempt, Checkpoint, JobEvent, MetricPoint)
CAROL = replace(BOB, id="carol", pid=33)
PAGE = Path(__file__).parents[2] / "docs/explanation/life-of-a-job.md"
OWN_CLOCKS = {"alice": -86_400.0, "bob": 86_400.0, "reconciler": 3_600.0}  # seconds off


class Table(LeaseMachine):
    """A job on which both workers have a lease, at most one of which is valid; and a bystander,
    which runs on a third worker all the time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.empty()
        self.held: dict[str, Lease] = {}
        self.newest: Lease | None = None  # what a reconciler reads from the row
        self.run_twice(CAROL, CAROL)
        (self.bystander,) = self.jobs

    def remember(self) -> None:
        """Remember everything but the bystander, for `restore`."""
        self.start = deepcopy((self.jobs, self.held, self.newest))
        with self.database.read() as session:
            self.rows = {
                table: [
                    row._asdict()
                    for row in session.execute(
                        select(table.__table__).where(_job_id(table) != self.bystander)
                    )
                ]
                for table in TABLES
            }

    def restore(self) -> None:
        """Go back to what was remembered, which is faster than doing it all again."""
        self.jobs, self.held, self.newest = deepcopy(self.start)
        with self.database.write() as session:
            session.execute(delete(Job).where(Job.id != self.bystander))
            session.execute(delete(Artifact))
            for table, rows in self.rows.items():
                session.execute(insert(table.__table__), rows)

    def rows_of_bystander(self) -> list[tuple[Any, ...]]:
        """Return everything that is stored about it."""
        with self.database.read() as session:
            return [
                tuple(row)
                for table in TABLES
                for row in session.execute(
                    select(table.__table__)
                    .where(_job_id(table) == self.bystander)
                    .order_by(*table.__table__.primary_key)
                )
            ]

    def run_twice(self, first: WorkerIdentity, second: WorkerIdentity) -> None:
        """Submit a job; one worker starts it and saves a checkpoint, another one continues it."""
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
        """After a clock step; a due job stays as it is."""
        with self.database.write() as session:
            dispatch.make_all_queued_jobs_due(session)

    def time_out(self) -> None:
        """The limit of the time in the queue is over for each job that may wait no longer."""
        late = {each for each, job in self.jobs.items() if job.in_line and not job.waits}
        with self.database.write() as session:
            assert set(dispatch.fail_queue_timeouts(session, queue_seconds=-1)) == late
        for each in late:
            self.jobs[each].end(JobState.FAILED)


def _job_id(table: Any) -> Any:
    return Job.id if table is Job else table.job_id


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
    "waits": InfrastructureUnavailable("storage_unavailable", "The disk is full.", seconds=0),
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
    yield Operation(owner.id, "rejects", lambda t: t.reject_checkpoint(lease=lease(t)))
    yield Operation(owner.id, "succeeds", lambda t: t.succeed(lease=lease(t)))
    for name in RESULTS:
        yield Operation(owner.id, name, partial(end_attempt, owner=owner, name=name))


OPERATIONS = [
    *operations_of_a_worker(ALICE),
    *operations_of_a_worker(BOB),
    Operation("reconciler", "expires", lambda t: t.expire_newest(known_dead=False)),
    Operation("reconciler", "buries", lambda t: t.expire_newest(known_dead=True)),
    Operation("reconciler", "dispatches", lambda t: t.redispatch()),
    Operation("reconciler", "makes due", lambda t: t.make_due()),
    Operation("reconciler", "times out", lambda t: t.time_out()),
]


def owned(table: Table) -> None:
    """Alice owns the job; Bob still has the lease of the attempt before."""
    table.run_twice(BOB, ALICE)


def overdue(table: Table) -> None:
    """The same, and the lease is over: Alice froze, or the clock of the database jumped."""
    owned(table)
    table.freeze(lease=table.held["alice"])


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


@pytest.mark.slow  # test_lease_state_machine.py is the small form
@pytest.mark.timeout(900)
@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.__name__)
@on_sqlite_first  # the state machine also runs on PostgreSQL, where this takes 100 s
def test_every_pair_of_operations(database: Database, start: Callable[[Table], None]) -> None:
    without_fsync(database)
    table = type("TableOnDatabase", (Table,), {"database": database})()
    bystander = table.rows_of_bystander()
    start(table)
    table.remember()
    covered = set()
    for first, second in product(OPERATIONS, repeat=2):
        table.restore()
        try:
            for operation in (first, second):
                with clock_of(operation.actor):
                    operation.run(table)
            table.rows_are_as_expected()
            assert table.rows_of_bystander() == bystander
        except Exception as error:
            error.add_note(f"{first}, then {second}, from: {start.__doc__}")
            raise
        covered.add((str(first), str(second)))
    for first in OPERATIONS:
        after = [str(second) for second in OPERATIONS if (str(first), str(second)) in covered]
        print(f"{first}, then: {', '.join(after)}")  # noqa: T201 - what `-rP` shows
    assert len(covered) == len(OPERATIONS) ** 2


def test_the_page_says_how_many_pairs_are_covered() -> None:
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    count = len(OPERATIONS)
    assert f"{count**2} ordered pairs of {count} operations" in page
