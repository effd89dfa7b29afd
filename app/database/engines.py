"""Connections to the database: one way to write, one to read."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from app.database import postgresql, sqlite
from app.database.errors import DatabaseUrlInvalid, UnsupportedDatabase
from app.settings import Settings


class Database:
    """Sessions for one database; safe to share between threads."""

    def __init__(self, *, write: Engine, read: Engine) -> None:
        self.write_engine = write
        self.read_engine = read

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

    A server gets a few seconds to come up. Raises `DatabaseUrlInvalid`, `DatabaseUnreachable`,
    `UnsupportedDatabase`.
    """
    url = _url(settings)
    if url.get_backend_name() == "sqlite":
        write, read = sqlite.engines(url, settings.data_dir)
    else:
        write, read = postgresql.engines(url)
    return Database(write=write, read=read)


def address(settings: Settings) -> str:
    """Where the database is, without its password and options. Raises `DatabaseUrlInvalid`."""
    url = _url(settings)
    return url.set(drivername=url.get_backend_name(), query={}).render_as_string()


def migration_engine(settings: Settings) -> Engine:
    """An engine on which a statement may take and wait as long as it needs. Raises as above."""
    url = _url(settings)
    if url.get_backend_name() == "sqlite":
        return sqlite.migration_engine(url, settings.data_dir)
    return postgresql.migration_engine(url)


def _url(settings: Settings) -> URL:
    try:
        url = make_url(settings.url)
    except (ArgumentError, ValueError) as error:  # a port that is no number is a ValueError
        raise DatabaseUrlInvalid(problem="it cannot be read as a URL") from error
    if "@" in (url.host or ""):  # the rest of a password, which no message may tell
        raise DatabaseUrlInvalid(problem="an @ in a user's name or password is written %40")
    if url.drivername in postgresql.NAMES:
        return url.set(drivername=postgresql.DRIVER)
    if url.drivername == "sqlite":
        return url
    raise UnsupportedDatabase(dialect=url.drivername, supported="sqlite, postgresql")
