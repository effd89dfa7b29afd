"""The database: one engine for writing, one for reading, and transaction locks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Engine, make_url, text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from app.database import postgresql, sqlite
from app.database.errors import DatabaseUrlInvalid, UnsupportedDatabase
from app.settings import Settings

_AFTER_COMMIT = "after_commit"


class Database:
    """Creates sessions on one database. Safe to share between threads."""

    def __init__(self, *, write: Engine, read: Engine) -> None:
        self.write_engine = write
        self.read_engine = read

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Yield a session that may write.

        Commits at the end of the block, and then runs what was registered with `call_after_commit`.
        If the block raises, everything is rolled back.
        """
        with Session(self.write_engine, expire_on_commit=False) as session:
            yield session
            session.commit()
        for call in session.info.get(_AFTER_COMMIT, ()):
            call()

    @contextmanager
    def erase(self) -> Iterator[Session]:
        """Yield a session like `write`, whose deletions also overwrite what they delete.

        This is for SQLite, in whose file the bytes of deleted rows otherwise stay until their space
        is used again. PostgreSQL frees them with its next autovacuum.
        """
        is_sqlite = self.write_engine.dialect.name == "sqlite"
        try:
            with self.write() as session:
                if is_sqlite:
                    sqlite.enable_secure_delete(session.connection())
                yield session
        finally:
            if is_sqlite:
                sqlite.disable_secure_delete_truncating_wal(self.write_engine)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Yield a read-only session on a consistent snapshot. Keep it short."""
        with Session(self.read_engine, expire_on_commit=False) as session:
            yield session

    def incremental_vacuum(self, *, dry_run: bool = False) -> int:
        """Give free space back to the disk; return the bytes, in a dry run those there are.

        Returns 0 for PostgreSQL, whose autovacuum takes care of it.
        """
        if self.write_engine.dialect.name != "sqlite":
            return 0
        vacuum = sqlite.unused_file_bytes if dry_run else sqlite.incremental_vacuum
        return vacuum(self.write_engine)

    def ensure_auto_vacuum(self) -> int:
        """Rebuild a SQLite file that cannot give space back; return the bytes by which it shrank.

        Such a file was created by an early version. Writers wait for seconds per 100 MB. Raises
        `NotEnoughMemoryToRebuild`.
        """
        if self.write_engine.dialect.name != "sqlite":
            return 0
        return sqlite.rebuild_with_auto_vacuum(self.write_engine)

    def close(self) -> None:
        """Close all connections."""
        self.write_engine.dispose()
        self.read_engine.dispose()


def open_database(settings: Settings) -> Database:
    """Open the database of the settings. Creates the SQLite file if it does not exist.

    Waits a few seconds for a server that is starting. Raises `DatabaseUrlInvalid`,
    `DatabaseUnreachable`, `UnsupportedDatabase`.
    """
    url = _parse_url(settings)
    if url.get_backend_name() == "sqlite":
        write, read = sqlite.create_engines(url, settings.data_dir)
    else:
        write, read = postgresql.create_engines(url)
    return Database(write=write, read=read)


def display_url(settings: Settings) -> str:
    """Return the database URL without password and options. Raises `DatabaseUrlInvalid`."""
    url = _parse_url(settings)
    return url.set(drivername=url.get_backend_name(), query={}).render_as_string()


def create_migration_engine(settings: Settings) -> Engine:
    """Create an engine without timeouts. Raises the same errors as `open_database`."""
    url = _parse_url(settings)
    if url.get_backend_name() == "sqlite":
        return sqlite.create_migration_engine(url, settings.data_dir)
    return postgresql.create_migration_engine(url)


def _parse_url(settings: Settings) -> URL:
    try:
        url = make_url(settings.sqlalchemy_url)
    except (ArgumentError, ValueError) as error:  # a non-numeric port is a ValueError
        raise DatabaseUrlInvalid(problem="it is not a valid URL") from error
    if "@" in (url.host or ""):  # part of a password, which messages must not contain
        raise DatabaseUrlInvalid(problem="an @ in the user name or password must be written as %40")
    if url.drivername in postgresql.URL_SCHEMES:
        return url.set(drivername=postgresql.DRIVER)
    if url.drivername == "sqlite":
        return url
    raise UnsupportedDatabase(dialect=url.drivername, supported="sqlite, postgresql")


def call_after_commit(session: Session, call: Callable[[], object]) -> None:
    """Register a call for the end of the transaction, such as sending a message.

    It runs once the transaction is committed and its connection released, and not at all after a
    rollback.
    """
    session.info.setdefault(_AFTER_COMMIT, []).append(call)


def acquire_transaction_lock(session: Session, name: str) -> None:
    """Acquire the named lock, and hold it until the end of the transaction.

    Use it around a read that decides what to write, such as the next version number of a model.
    SQLite needs no lock, as it has a single writer.
    """
    if session.get_bind().dialect.name == "postgresql":
        statement = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
        session.execute(statement, {"name": name})
