"""Transaction locks."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.database.engines import Database, acquire_transaction_lock
from app.registry import repository
from tests.waiting import wait_for_a_waiter, wait_until


@pytest.fixture
def database_kind() -> str:
    return "postgresql"


def test_same_lock_blocks_and_other_locks_do_not(database: Database) -> None:
    acquired, other = threading.Event(), threading.Event()

    def take(what: str, done: threading.Event) -> None:
        with database.write() as session:
            acquire_transaction_lock(session, what)
            done.set()

    with ThreadPoolExecutor(2) as threads:
        with database.write() as session:
            acquire_transaction_lock(session, "a")
            acquire_transaction_lock(session, "a")  # the lock is reentrant
            threads.submit(take, "a", acquired)
            threads.submit(take, "b", other)
            wait_until(other.is_set, what="the other lock")
            wait_for_a_waiter(database)
            assert not acquired.is_set()
        wait_until(acquired.is_set, what="the lock")


def test_concurrent_version_numbers_do_not_collide(database: Database) -> None:
    def number() -> int:
        with database.write() as session:
            taken = repository.reserve_version_number(session, "sentiment")[1]
            return taken

    with ThreadPoolExecutor(8) as threads:
        numbers = [each.result() for each in [threads.submit(number) for _ in range(8)]]
    assert sorted(numbers) == list(range(1, 9))
