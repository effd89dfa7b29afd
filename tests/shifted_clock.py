"""A database clock that a test can shift for all processes of an installation."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, text

VARIABLE = "SHIFTED_CLOCK"  # names the file with the seconds, for processes on SQLite


class ShiftedClock:
    """Installed before other connections to the database are opened."""

    def __init__(self, file: Path, database_url: str | None) -> None:
        self._file = file
        self._url = database_url
        self._file.write_text("0")
        self._stop_following: Callable[[], None] = lambda: None
        if database_url is None:
            self._stop_following = follow(file)
        else:
            self._execute(*_OWN_CLOCK)

    def shift(self, seconds: float) -> None:
        """Shift the clock."""
        if self._url is None:
            self._file.write_text(str(seconds))
        else:
            self._execute(f"UPDATE test.shift SET seconds = {seconds}")  # noqa: S608 - a number

    def remove(self) -> None:
        """Set the clock right, and leave connections that are opened from now on alone."""
        self.shift(0)
        self._stop_following()

    def _execute(self, *statements: str) -> None:
        engine = create_engine((self._url or "").replace("postgresql:", "postgresql+psycopg:"))
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()


def follow_if_asked() -> None:
    """Environment for processes that a test starts."""
    if file := os.environ.get(VARIABLE):
        follow(Path(file))


def follow(file: Path) -> Callable[[], None]:
    """Make SQLite return the system time plus the seconds in the file, in this process.

    Returns a function that ends it.
    """

    def clock(*_: Any) -> float:
        return time.time() + float(file.read_text() or 0)

    def on_connect(connection: Any, _record: Any) -> None:
        if hasattr(connection, "create_function"):
            connection.create_function("unixepoch", -1, clock)

    event.listen(Engine, "connect", on_connect)
    return partial(event.remove, Engine, "connect", on_connect)


# `test` comes first in the search path, so that its clock shadows PostgreSQL's own.
_OWN_CLOCK = (
    "CREATE SCHEMA test",
    "CREATE TABLE test.shift AS SELECT 0.0 AS seconds",
    "CREATE FUNCTION test.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS $$"
    " SELECT pg_catalog.clock_timestamp() + make_interval(secs => s.seconds::double precision)"
    " FROM test.shift AS s $$",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = test, pg_catalog, public',"
    " current_database()); END $$",
)
