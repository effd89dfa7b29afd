"""Connections to the database: one way to write, one to read.

SQLite takes one writer at a time, and a transaction that begins by reading cannot become a writer
while another one writes. So every write begins with BEGIN IMMEDIATE on its own single connection,
and reads use connections that cannot write. `pysqlite3` brings a SQLite that is free of the
WAL-reset bug (3.7.0 to 3.51.2), which the one linked into many Pythons still has; without the fix
no WAL is used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pysqlite3.dbapi2 as sqlite
from sqlalchemy import Connection, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.orm import Session

from app.db.errors import UnsupportedDatabase
from app.settings import Settings

BUSY_SECONDS = 10
READERS = 16


class Database:
    """Sessions for one database; safe to share between threads."""

    def __init__(self, *, write: Engine, read: Engine) -> None:
        self.write_engine = write
        self.read_engine = read
        self.dialect = write.dialect.name

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A session that may write. Leaving it without `commit()` undoes everything."""
        with Session(self.write_engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one moment and cannot write. Keep it short."""
        with Session(self.read_engine, expire_on_commit=False) as session:
            yield session

    def close(self) -> None:
        """Give back every connection."""
        self.write_engine.dispose()
        self.read_engine.dispose()


def open_database(settings: Settings) -> Database:
    """The database that the settings name; made if it is a file and not there yet.

    Raises `UnsupportedDatabase`.
    """
    dialect = make_url(settings.url).get_backend_name()
    if dialect not in _OPENERS:
        raise UnsupportedDatabase(dialect=dialect, supported=", ".join(_OPENERS))
    return _OPENERS[dialect](settings)


def wal_is_safe(version: tuple[int, int, int]) -> bool:
    """Whether this SQLite has the fix for the bug that can lose commits in WAL mode."""
    major, minor, _ = version
    first_fixed = {(3, 50): (3, 50, 7), (3, 44): (3, 44, 6)}.get((major, minor), (3, 51, 3))
    return version >= first_fixed


def _sqlite(settings: Settings) -> Database:
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    journal = "WAL" if wal_is_safe(sqlite.sqlite_version_info) else "TRUNCATE"
    write = _sqlite_engine(settings.url, connections=1)
    read = _sqlite_engine(settings.url, connections=READERS)
    event.listen(write, "connect", _set_up("synchronous=FULL", f"journal_mode={journal}"))
    event.listen(read, "connect", _set_up("query_only=ON"))
    event.listen(write, "begin", _begin_immediate)
    event.listen(read, "begin", _begin)
    return Database(write=write, read=read)


def _sqlite_engine(url: str, *, connections: int) -> Engine:
    return create_engine(
        url,
        module=sqlite,
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None, "check_same_thread": False},
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=BUSY_SECONDS,
        hide_parameters=True,  # errors are logged, and rows hold what callers sent
    )


def _set_up(*pragmas: str) -> Any:
    def on_connect(connection: Any, _record: Any) -> None:
        for pragma in ("foreign_keys=ON", *pragmas):
            connection.execute(f"PRAGMA {pragma}")

    return on_connect


def _begin_immediate(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


_OPENERS = {"sqlite": _sqlite}
