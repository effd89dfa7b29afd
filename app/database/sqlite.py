"""Engines on a SQLite file.

SQLite takes one writer at a time, and a transaction that begins by reading cannot become a writer
while another one writes. So every write begins with BEGIN IMMEDIATE on its own single connection,
and reads use connections that cannot write. `pysqlite3` brings a SQLite that is free of the
WAL-reset bug (3.7.0 to 3.51.2), which the one linked into many Pythons still has; without the fix
no WAL is used.
"""

import time
from pathlib import Path
from typing import Any

import pysqlite3.dbapi2 as sqlite
from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event

from app.database.errors import DatabaseUrlInvalid

BUSY_SECONDS = 10
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.01, 0.001
READERS = 16


def engines(url: URL, data_dir: Path) -> tuple[Engine, Engine]:
    """To write and to read. Raises `DatabaseUrlInvalid`."""
    return _writer(url, data_dir, foreign_keys=True), _reader(url)


def migration_engine(url: URL, data_dir: Path) -> Engine:
    """A table is changed by copying and dropping it, which must not empty those that point at it.

    Raises `DatabaseUrlInvalid`.
    """
    return _writer(url, data_dir, foreign_keys=False)


def wal_is_safe(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite has the fix for the bug that can lose commits in WAL mode."""
    major, minor, _ = version
    first_fixed = {(3, 50): (3, 50, 7), (3, 44): (3, 44, 6)}.get((major, minor), (3, 51, 3))
    return version >= first_fixed


def _writer(url: URL, data_dir: Path, *, foreign_keys: bool) -> Engine:
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = _engine(url, connections=1)
    keys = "ON" if foreign_keys else "OFF"
    pragmas = (f"foreign_keys={keys}", "synchronous=FULL", f"journal_mode={_journal(url)}")
    event.listen(engine, "connect", _set_up(*pragmas))
    event.listen(engine, "connect", _wait_fairly)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _reader(url: URL) -> Engine:
    engine = _engine(url, connections=READERS)
    event.listen(engine, "connect", _set_up("foreign_keys=ON", "query_only=ON"))
    event.listen(engine, "begin", _begin)
    return engine


def _engine(url: URL, *, connections: int) -> Engine:
    return create_engine(
        url.difference_update_query(["journal_mode"]),
        module=sqlite,
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": False},
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=BUSY_SECONDS,
        hide_parameters=True,  # errors are logged, and rows hold what callers sent
    )


def _journal(url: URL) -> str:
    """`?journal_mode=truncate` is for file systems without shared memory, which WAL needs."""
    asked = url.query.get("journal_mode", "wal")
    if asked not in ("wal", "truncate"):
        raise DatabaseUrlInvalid(problem="journal_mode must be wal or truncate")
    return "WAL" if asked == "wal" and wal_is_safe(sqlite.sqlite_version_info) else "TRUNCATE"


def _set_up(*pragmas: str) -> Any:
    def on_connect(connection: Any, _record: Any) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    return on_connect


def _wait_fairly(connection: Any, _record: Any) -> None:
    """Whoever has waited longest for the lock asks most often.

    SQLite's own pauses grow to 100 ms: newcomers then always win, and some wait for seconds.
    """
    deadline = 0.0

    def ask_again(asked: int) -> bool:
        nonlocal deadline
        if asked == 0:
            deadline = time.monotonic() + BUSY_SECONDS
        time.sleep(max(LAST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 0.9**asked))
        return time.monotonic() < deadline

    connection.set_busy_handler(ask_again)


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
