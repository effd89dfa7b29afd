"""How long transactions hold what other writers wait for."""

import time
from typing import Any

from sqlalchemy import Engine, event


class WriteClock:
    """Times every transaction of an engine that writes.

    It begins when SQLite's lock is taken, on PostgreSQL with the connection, and ends when the
    connection is given back, so that the commit is part of it.
    """

    def __init__(self, engine: Engine) -> None:
        self.seconds: list[float] = []
        self._began: dict[int, float] = {}
        if engine.dialect.name == "sqlite":
            event.listen(engine, "after_cursor_execute", self._locked)
        else:
            event.listen(engine, "checkout", self._checked_out)
        event.listen(engine, "checkin", self._checked_in)

    @property
    def longest_ms(self) -> float:
        return round(1000 * max(self.seconds, default=0.0), 1)

    def _locked(self, connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement == "BEGIN IMMEDIATE":
            self._began[id(connection.connection.dbapi_connection)] = time.perf_counter()

    def _checked_out(self, connection: Any, *_: Any) -> None:
        self._began[id(connection)] = time.perf_counter()

    def _checked_in(self, connection: Any, *_: Any) -> None:
        if (began := self._began.pop(id(connection), None)) is not None:
            self.seconds.append(time.perf_counter() - began)
