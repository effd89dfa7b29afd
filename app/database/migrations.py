"""The schema of the database: bring it up to date, or refuse one that does not fit the code."""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import URL, Connection
from sqlalchemy.exc import DBAPIError

from app.database.engines import Database, migration_engine
from app.database.errors import (
    OUTAGE,
    DatabaseRefused,
    DatabaseUnavailable,
    SchemaNewer,
    SchemaOlder,
)
from app.errors import AppError
from app.settings import Settings

ONE_AT_A_TIME = 0x6C6F7261776F726B  # the number of a lock that only migrations take


class Move(NamedTuple):
    """The revisions before and after; `None` is the empty database."""

    before: str | None
    after: str | None


def upgrade(settings: Settings, revision: str = "head") -> Move:
    """Create or update the schema. Raises `SchemaNewer`, `DatabaseUnavailable`, `DatabaseRefused`.

    Several at once take turns; the later ones find nothing to do.
    """
    return _run(settings, command.upgrade, revision)


def downgrade(settings: Settings, revision: str) -> None:
    """Take the schema back to an earlier revision; `base` is the empty database."""
    _run(settings, command.downgrade, revision)


def check(database: Database) -> str:
    """The revision of the schema, if it is the one of this code.

    Raises `SchemaOlder`, `SchemaNewer`, `DatabaseUnavailable`, `DatabaseRefused`.
    """
    try:
        with database.read() as session:
            found = _current(session.connection())
    except DBAPIError as error:
        raise _told(error) from error
    expected, name = _script().get_current_head(), _name(database.write_engine.url)
    if found is not None and found == expected:
        return found
    if found is None or _knows(found):
        has = f"schema {found}" if found else "no schema yet"
        raise SchemaOlder(database=name, found=has, expected=expected)
    raise SchemaNewer(database=name, found=found, expected=expected)


def _run(settings: Settings, step: Callable[[Config, str], None], revision: str) -> Move:
    """All steps in one transaction, so that an error halfway leaves the old schema."""
    engine = migration_engine(settings)
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":  # SQLite has one writer at a time anyway
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({ONE_AT_A_TIME})")
            found = _current(connection)
            if found is not None and not _knows(found):
                expected = _script().get_current_head()
                raise SchemaNewer(database=_name(engine.url), found=found, expected=expected)
            step(_config(connection), revision)
            if engine.dialect.name == "sqlite" and _dangling(connection):
                raise RuntimeError("a migration left rows that point at nothing")
            return Move(found, _current(connection))
    except DBAPIError as error:
        raise _told(error) from error
    finally:
        engine.dispose()


def _told(error: DBAPIError) -> AppError:
    """What to say of it: waiting helps against an outage only."""
    if isinstance(error, OUTAGE):
        return DatabaseUnavailable()
    return DatabaseRefused(reason=str(error.orig).partition("\n")[0])


def _name(url: URL) -> str:
    """Without host and folder: `/readyz` shows it to everybody."""
    kind = "SQLite" if url.get_backend_name() == "sqlite" else "PostgreSQL"
    return f"{kind} database {Path(url.database or '').name!r}"


def _dangling(connection: Connection) -> bool:
    return bool(connection.exec_driver_sql("PRAGMA foreign_key_check").all())


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@cache
def _script() -> ScriptDirectory:
    """Read once: readiness is asked often."""
    return ScriptDirectory.from_config(_config())


def _knows(revision: str) -> bool:
    try:
        return _script().get_revision(revision) is not None
    except CommandError:
        return False


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    location = str(files("migrations")).replace("%", "%%")
    config.set_main_option("script_location", location)
    config.attributes["connection"] = connection
    return config
