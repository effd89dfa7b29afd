"""Every pair of operations of `test_lease_pairs` in two transactions at the same time.

Only on PostgreSQL: SQLite has one writer, so its transactions follow each other.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Double, select, text
from sqlalchemy.orm import Session
from sqlalchemy.orm.exc import StaleDataError

from app.database.engines import Database
from app.queue.fencing import LeaseLost
from app.queue.tables import Job
from tests.conformance.test_lease_pairs import (
    STARTS,
    TABLES,
    Operation,
    Table,
    one_after_the_other,
    run_pairs,
    started,
)

ARTIFACT_ID = Job.__table__.c.artifact_id  # another one each time
UNEXPECTED = (AssertionError, LeaseLost, pytest.fail.Exception)
WAITS_FOR_LOCK = text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


class OpenTransactions:
    """A database whose transactions stay open until they are committed."""

    def __init__(self, database: Database) -> None:
        self._engine = database.write_engine
        self._sessions: list[Session] = []

    @contextmanager
    def write(self) -> Iterator[Session]:
        session = Session(self._engine, expire_on_commit=False)
        self._sessions.append(session)
        try:
            yield session
            session.flush()
        except BaseException:
            session.rollback()
            raise

    def commit(self) -> None:
        for session in self._sessions:
            session.commit()
            session.close()


def run_as_a_worker(operation: Operation, table: Table) -> None:
    try:
        operation.run(table)
    except StaleDataError:  # its row was deleted meanwhile: the reconciler's next round repeats it
        operation.run(table)


def overlap(
    database: Database, threads: ThreadPoolExecutor, table: Table, *pair: Operation
) -> None:
    """Start the second one while the transaction of the first is open, and commit that one when
    the second has ended or waits for it.
    """
    first, second = pair
    opened = OpenTransactions(database)
    table.database = opened  # type: ignore[assignment]
    try:
        first.run(table)
        table.database = database
        ended = threads.submit(run_as_a_worker, second, table)
        wait_until_blocked(database, ended)
    finally:
        table.database = database
        opened.commit()
    ended.result()
    table.rows_are_as_expected()


def wait_until_blocked(database: Database, ended: Future[None]) -> None:
    with database.write_engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        while not ended.done() and not connection.scalar(WAITS_FOR_LOCK):
            time.sleep(0.001)


def at_the_same_time(
    database: Database,
    threads: ThreadPoolExecutor,
    table: Table,
    first: Operation,
    second: Operation,
) -> None:
    """Answers and rows must be those of one of the two orders."""
    if first.actor == second.actor and second.name == "rejects":
        one_after_the_other(table, first, second)  # a worker does so in one thread, at the start
        return
    try:
        overlap(database, threads, table, first, second)
    except UNEXPECTED:  # then the second one did not see the first
        allowed = [rows_after(table, second, first)]
        if second.name == "claims":  # it skips a locked job, which the next poll finds
            allowed.append(rows_after(table, first))
        table.restore()
        with suppress(*UNEXPECTED):
            overlap(database, threads, table, first, second)
        assert rows_without_times(table) in allowed


def rows_after(table: Table, *operations: Operation) -> dict[Any, list[tuple[Any, ...]]]:
    table.restore()
    for operation in operations:
        operation.run(table)
    return rows_without_times(table)


def rows_without_times(table: Table) -> dict[Any, list[tuple[Any, ...]]]:
    """Return what is stored, events included."""
    with table.database.read() as session:
        return {
            each: [
                tuple(row)
                for row in session.execute(
                    select(*without_times(each)).order_by(*each.__table__.primary_key)
                )
            ]
            for each in TABLES
        }


def without_times(table: Any) -> list[Any]:
    return [
        column
        for column in table.__table__.c
        if not isinstance(column.type, Double) and column is not ARTIFACT_ID
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.__name__)
@pytest.mark.parametrize("database_kind", ["postgresql"])
def test_every_pair_at_the_same_time(database: Database, start: Callable[[Table], None]) -> None:
    with ThreadPoolExecutor(1) as threads:
        run_pairs(started(database, start), partial(at_the_same_time, database, threads))
