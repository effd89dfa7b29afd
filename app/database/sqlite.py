"""Engines on a SQLite file.

SQLite allows one writer at a time, and a transaction that begins with a read cannot become a writer
while another one writes. So every write begins with BEGIN IMMEDIATE on a single connection, and
reads use connections that cannot write. `pysqlite3` bundles a SQLite without the WAL-reset bug
(3.7.0 to 3.51.2), which the SQLite of many Python builds still has. Without the fix, WAL is not
used.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pysqlite3.dbapi2 as sqlite
from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError

from app.database.errors import DatabaseUrlInvalid, NotEnoughMemoryToRebuild

BUSY_TIMEOUT_SECONDS = 10
MAX_RETRY_SECONDS = 0.01
_MIN_RETRY_SECONDS = 0.001

_READ_POOL_SIZE = 16
MB = 10**6
_INCREMENTAL = 2  # value of the pragma `auto_vacuum`
MAX_WAL_BYTES = 64_000_000  # of a WAL that a checkpoint has emptied
VACUUM_PAGES = 250  # pages that one transaction gives back, in about 10 ms
_VACUUM_PAUSE_SECONDS = 0.01  # between two of them, so that others can write


def create_engines(url: URL, data_dir: Path) -> tuple[Engine, Engine]:
    """Create the engines for writing and for reading. Raises `DatabaseUrlInvalid`."""
    return _create_write_engine(url, data_dir, foreign_keys=True), _create_read_engine(url)


def create_migration_engine(url: URL, data_dir: Path) -> Engine:
    """Create an engine without foreign key enforcement.

    SQLite migrations copy and drop a table, which must not cascade to the tables that refer to it.

    Raises `DatabaseUrlInvalid`.
    """
    return _create_write_engine(url, data_dir, foreign_keys=False)


def has_wal_fix(version: tuple[int, int, int]) -> bool:
    """Return whether this SQLite version has the fix for the WAL bug that can lose commits."""
    major, minor, _ = version
    first_fixed = {(3, 50): (3, 50, 7), (3, 44): (3, 44, 6)}.get((major, minor), (3, 51, 3))
    return version >= first_fixed


def unused_file_bytes(engine: Engine) -> int:
    """Return the bytes of the file that no row uses."""
    with _driver_connection(engine) as connection:
        return _pragma(connection, "freelist_count") * _pragma(connection, "page_size")


def incremental_vacuum(engine: Engine) -> int:
    """Shorten the file by its free pages, and return their bytes.

    Others can read and write meanwhile. Does nothing to a file of before `auto_vacuum` was on:
    `rebuild_with_auto_vacuum` turns it on.
    """
    given_back = 0
    while True:
        with _driver_connection(engine) as connection:
            before = _pragma(connection, "freelist_count")
            if not before or _pragma(connection, "auto_vacuum") != _INCREMENTAL:
                break
            # Each row that is fetched moves one page.
            connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES})").fetchall()
            freed = before - _pragma(connection, "freelist_count")
            given_back += freed * _pragma(connection, "page_size")
        if freed <= 0:
            break
        time.sleep(_VACUUM_PAUSE_SECONDS)
    with _driver_connection(engine) as connection:  # the file is shortened by a checkpoint
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return given_back


def rebuild_with_auto_vacuum(engine: Engine) -> int:
    """Rewrite a file that was created without `auto_vacuum`, and turn it on; return the bytes by
    which the file shrank.

    Writers wait until the end. The new file is built in memory and then written to the WAL, so this
    takes as much memory and free disk space as the rows. Raises `NotEnoughMemoryToRebuild`.
    """
    with _driver_connection(engine) as connection:
        if _pragma(connection, "auto_vacuum") == _INCREMENTAL:
            return 0
        free, page_size = (_pragma(connection, name) for name in ("freelist_count", "page_size"))
        needed = (_pragma(connection, "page_count") - free) * page_size
        if needed > (available := _available_memory()):
            raise NotEnoughMemoryToRebuild(needed_mb=needed // MB, available_mb=available // MB)
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # has an effect with the next line
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    return free * page_size


def enable_secure_delete(connection: Connection) -> None:
    """Overwrite what is deleted from now on, until `disable_secure_delete_truncating_wal`."""
    connection.exec_driver_sql("PRAGMA secure_delete=ON")


def disable_secure_delete_truncating_wal(engine: Engine) -> None:
    """Stop overwriting what is deleted, and empty the WAL, unless a reader still needs it."""
    with _driver_connection(engine) as connection:
        connection.execute("PRAGMA secure_delete=OFF").fetchall()
        busy, pages, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if not busy and pages == copied:  # otherwise the next one would wait for the reader
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextmanager
def _driver_connection(engine: Engine) -> Iterator[Any]:
    """Yield a connection of the driver that is not in a transaction."""
    connection = engine.raw_connection()
    try:
        yield connection.driver_connection
    except sqlite.Error as error:
        raise DBAPIError.instance(None, None, error, sqlite.Error) from error
    finally:
        connection.close()


def _available_memory() -> int:
    """Return the bytes that programs can use without swapping."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def _pragma(connection: Any, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _create_write_engine(url: URL, data_dir: Path, *, foreign_keys: bool) -> Engine:
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = _create_engine(url, connections=1)
    keys = "ON" if foreign_keys else "OFF"
    pragmas = (
        f"foreign_keys={keys}",
        "synchronous=FULL",
        f"journal_mode={_journal_mode(url)}",
        f"journal_size_limit={MAX_WAL_BYTES}",
    )
    event.listen(engine, "connect", _set_auto_vacuum)
    event.listen(engine, "connect", _set_pragmas(*pragmas))
    event.listen(engine, "connect", _set_busy_handler)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _create_read_engine(url: URL) -> Engine:
    engine = _create_engine(url, connections=_READ_POOL_SIZE)
    event.listen(engine, "connect", _set_pragmas("foreign_keys=ON", "query_only=ON"))
    event.listen(engine, "begin", _begin)
    return engine


def _create_engine(url: URL, *, connections: int) -> Engine:
    return create_engine(
        url.difference_update_query(["journal_mode"]),
        module=sqlite,
        connect_args={
            "timeout": BUSY_TIMEOUT_SECONDS,
            "isolation_level": None,
            "check_same_thread": False,
        },
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_SECONDS,
        hide_parameters=True,  # errors are logged, and parameters contain the callers' data
    )


def _journal_mode(url: URL) -> str:
    """Return the journal mode. `?journal_mode=truncate` suits file systems without shared memory,
    which WAL needs."""
    requested = url.query.get("journal_mode", "wal")
    if requested not in ("wal", "truncate"):
        raise DatabaseUrlInvalid(problem="journal_mode must be wal or truncate")
    return "WAL" if requested == "wal" and has_wal_fix(sqlite.sqlite_version_info) else "TRUNCATE"


def _set_auto_vacuum(connection: Any, _record: Any) -> None:
    """Let a new file become shorter. In a file with tables, the pragma would only take the lock."""
    if not _pragma(connection, "page_count"):
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")


def _set_pragmas(*pragmas: str) -> Any:
    def on_connect(connection: Any, _record: Any) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    return on_connect


def _set_busy_handler(connection: Any, _record: Any) -> None:
    """Install a busy handler that retries more often the longer it has waited for the lock.

    SQLite's own delays grow to 100 ms, so that new waiters always win and some wait for seconds.
    """
    deadline = 0.0

    def retry(attempt: int) -> bool:
        nonlocal deadline
        if attempt == 0:
            deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
        time.sleep(max(_MIN_RETRY_SECONDS, MAX_RETRY_SECONDS * 0.9**attempt))
        return time.monotonic() < deadline

    connection.set_busy_handler(retry)


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
