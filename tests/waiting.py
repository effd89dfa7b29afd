"""Waiting for something to become true, with a deadline."""

import os
import signal
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.database.engines import Database

Value = TypeVar("Value")


def wait_until(
    look: Callable[[], Value], *, seconds: float = 60.0, what: str = "it", pause: float = 0.02
) -> Value:
    """The first true answer of `look`, asked every `pause` seconds. Fails the test if none comes
    in time.
    """
    deadline = time.monotonic() + seconds
    while not (value := look()):
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s"
        time.sleep(pause)
    return value


def wait_for_a_waiter(database: Database) -> None:
    """Wait until a transaction waits for another one, on PostgreSQL."""

    def waits() -> int:
        with database.read() as session:
            statement = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            return int(session.execute(statement).scalar_one())

    wait_until(waits, what="one that waits")


def put_to_sleep(pid: int, database: Database) -> None:
    """Stop a process, but not in the middle of a write: SQLite's lock would sleep with it."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        try:
            with database.write() as session:
                session.execute(text("SELECT 1"))
                return
        except OperationalError:
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.02)
