"""How long write transactions block other writers."""

import time
from typing import Any

from sqlalchemy import Connection, Engine, Pool, event

WRITES = ("INSERT", "UPDATE", "DELETE", "WITH")


class WriteClock:
    """Times every transaction of this process that writes, until its connection is given back.

    On SQLite it begins when the one writer's lock is taken; on PostgreSQL with the first row that
    is written, since no one waits before that. The commit is included.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began: dict[int, float] = {}
        event.listen(Engine, "before_cursor_execute", self._writes)
        event.listen(Engine, "after_cursor_execute", self._locked)
        event.listen(Pool, "checkin", self._checked_in)

    def longest_ms(self) -> float:
        """Of the transactions since the last call."""
        longest, self.seconds = max(self.seconds, default=0.0), []
        return round(1000 * longest, 1)

    def close(self) -> None:
        """Stop timing."""
        event.remove(Engine, "before_cursor_execute", self._writes)
        event.remove(Engine, "after_cursor_execute", self._locked)
        event.remove(Pool, "checkin", self._checked_in)

    def _writes(self, connection: Connection, _: Any, statement: str, *__: Any) -> None:
        if connection.dialect.name != "sqlite" and statement.startswith(WRITES):
            self._began.setdefault(_id(connection), time.perf_counter())

    def _locked(self, connection: Connection, _: Any, statement: str, *__: Any) -> None:
        if statement == "BEGIN IMMEDIATE":
            self._began[_id(connection)] = time.perf_counter()

    def _checked_in(self, connection: Any, _: Any) -> None:
        if (began := self._began.pop(id(connection), None)) is not None:
            self.seconds.append(time.perf_counter() - began)


def _id(connection: Connection) -> int:
    return id(connection.connection.dbapi_connection)
