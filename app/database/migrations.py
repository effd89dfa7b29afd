"""Schema migrations with Alembic, and the check that the schema matches this version."""

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

from app.database.engines import Database, create_migration_engine
from app.database.errors import (
    OUTAGE_ERRORS,
    DatabaseOperationRefused,
    DatabaseUnavailable,
    SchemaOutdated,
    SchemaTooNew,
    to_app_error,
)
from app.errors import AppError, InsufficientStorage
from app.settings import Settings

MIGRATION_LOCK_ID = 0x6C6F7261776F726B  # PostgreSQL advisory lock of migrations


class RevisionChange(NamedTuple):
    """The revisions before and after a migration; `None` is an empty database."""

    before: str | None
    after: str | None


def upgrade(settings: Settings, revision: str = "head") -> RevisionChange:
    """Create or upgrade the schema.

    Concurrent calls run one after another, and the later ones have nothing left to do.

    Raises `SchemaTooNew`, `DatabaseUnavailable`, `DatabaseOperationRefused`, `InsufficientStorage`.
    """
    return _migrate(settings, command.upgrade, revision)


def downgrade(settings: Settings, revision: str) -> None:
    """Downgrade the schema to an earlier revision; `base` is an empty database."""
    _migrate(settings, command.downgrade, revision)


def check_schema_revision(database: Database) -> str:
    """Return the revision of the schema if it matches this version.

    Raises `SchemaOutdated`, `SchemaTooNew`, `DatabaseUnavailable`, `DatabaseOperationRefused`.
    """
    try:
        with database.read() as session:
            current = _current_revision(session.connection())
    except DBAPIError as error:
        raise _to_app_error(error) from error
    expected = _script_directory().get_current_head()
    name = _display_name(database.write_engine.url)
    if current is not None and current == expected:
        return current
    if current is None or _is_known_revision(current):
        found = f"schema {current}" if current else "no schema yet"
        raise SchemaOutdated(database=name, found=found, expected=expected)
    raise SchemaTooNew(database=name, found=current, expected=expected)


def _migrate(
    settings: Settings, step: Callable[[Config, str], None], revision: str
) -> RevisionChange:
    """Run all steps in one transaction, so that a failure leaves the old schema."""
    engine = create_migration_engine(settings)
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":  # SQLite has a single writer
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK_ID})")
            before = _current_revision(connection)
            if before is not None and not _is_known_revision(before):
                raise SchemaTooNew(
                    database=_display_name(engine.url),
                    found=before,
                    expected=_script_directory().get_current_head(),
                )
            step(_alembic_config(connection), revision)
            if engine.dialect.name == "sqlite" and _has_foreign_key_violations(connection):
                raise RuntimeError("a migration left rows with dangling foreign keys")
            return RevisionChange(before, _current_revision(connection))
    except DBAPIError as error:
        raise _to_app_error(error) from error
    finally:
        engine.dispose()


def _to_app_error(error: DBAPIError) -> AppError:
    """Translate the error: retrying helps only against an outage, or a deadlock."""
    known = to_app_error(error)
    if isinstance(known, InsufficientStorage):
        return known
    if known is not None and isinstance(error, OUTAGE_ERRORS):
        return DatabaseUnavailable()
    return DatabaseOperationRefused(reason=str(error.orig).partition("\n")[0])


def _display_name(url: URL) -> str:
    """Return a name without host and directory, because `/readyz` is public."""
    system = "SQLite" if url.get_backend_name() == "sqlite" else "PostgreSQL"
    return f"{system} database {Path(url.database or '').name!r}"


def _has_foreign_key_violations(connection: Connection) -> bool:
    return bool(connection.exec_driver_sql("PRAGMA foreign_key_check").all())


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@cache
def _script_directory() -> ScriptDirectory:
    """Return Alembic's script directory. Cached, as readiness probes call it often."""
    return ScriptDirectory.from_config(_alembic_config())


def _is_known_revision(revision: str) -> bool:
    try:
        return _script_directory().get_revision(revision) is not None
    except CommandError:
        return False


def _alembic_config(connection: Connection | None = None) -> Config:
    config = Config()
    location = str(files("migrations")).replace("%", "%%")
    config.set_main_option("script_location", location)
    config.attributes["connection"] = connection
    return config
