"""One at a time through a read that decides what is written."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from app.db.engines import Database
from app.db.turns import take_turns
from app.registry import repository
from tests.waiting import wait_until


@pytest.fixture
def database_kind() -> str:
    return "postgresql"


def waits(database: Database) -> bool:
    with database.read() as session:
        statement = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(session.execute(statement).scalar_one())


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
            wait_until(lambda: waits(database) and other.is_set(), what="one that waits")
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
