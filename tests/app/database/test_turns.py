"""One at a time through a read that decides what is written."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.database.engines import Database
from app.database.locks import take_turns
from app.registry import repository
from tests.waiting import wait_for_a_waiter, wait_until


@pytest.fixture
def database_kind() -> str:
    return "postgresql"


def test_who_wants_the_same_waits_and_others_do_not(database: Database) -> None:
    held, other = threading.Event(), threading.Event()

    def take(what: str, done: threading.Event) -> None:
        with database.write() as session:
            take_turns(session, what)
            done.set()

    with ThreadPoolExecutor(2) as threads:
        with database.write() as session:
            take_turns(session, "a")
            take_turns(session, "a")  # who holds it may ask again
            threads.submit(take, "a", held)
            threads.submit(take, "b", other)
            wait_until(other.is_set, what="the turn of the other")
            wait_for_a_waiter(database)
            assert not held.is_set()
        wait_until(held.is_set, what="its turn")


def test_version_numbers_of_a_new_name_do_not_collide(database: Database) -> None:
    def number() -> int:
        with database.write() as session:
            taken = repository.next_number(session, "sentiment")[1]
            session.commit()
            return taken

    with ThreadPoolExecutor(8) as threads:
        numbers = [each.result() for each in [threads.submit(number) for _ in range(8)]]
    assert sorted(numbers) == list(range(1, 9))
