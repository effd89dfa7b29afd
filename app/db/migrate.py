"""The schema of the database: bring it up to date, or refuse one that does not fit the code."""

from collections.abc import Callable
from importlib.resources import files
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError

from app.db.engines import Database, open_database
from app.db.errors import DatabaseUnavailable, SchemaNewer, SchemaOlder
from app.settings import Settings


def upgrade(settings: Settings, revision: str = "head") -> None:
    """Create or update the schema. Raises `SchemaNewer`, `DatabaseUnavailable`."""
    _run(settings, command.upgrade, revision)


def downgrade(settings: Settings, revision: str) -> None:
    """Take the schema back to an earlier revision; `base` is the empty database."""
    _run(settings, command.downgrade, revision)


def check(database: Database) -> None:
    """Return if the schema is the one of this code.

    Raises `SchemaOlder`, `SchemaNewer`, `DatabaseUnavailable`.
    """
    try:
        with database.read() as session:
            found = _current(session.connection())
    except DBAPIError as error:
        raise DatabaseUnavailable() from error
    script = ScriptDirectory.from_config(_config())
    expected = script.get_current_head()
    if found == expected:
        return
    if found is None or _knows(script, found):
        raise SchemaOlder(found=found or "none", expected=expected)
    raise SchemaNewer(found=found, expected=expected)


def _run(settings: Settings, step: Callable[[Config, str], None], revision: str) -> None:
    """All steps in one transaction, so that an error halfway leaves the old schema."""
    database = open_database(settings)
    if database.dialect == "sqlite":
        # A table is changed by copying and dropping it, which must not empty those that point at it.
        event.listen(database.write_engine, "connect", _without_foreign_keys)
    try:
        with database.write_engine.begin() as connection:
            config = _config(connection)
            found = _current(connection)
            script = ScriptDirectory.from_config(config)
            if found is not None and not _knows(script, found):
                raise SchemaNewer(found=found, expected=script.get_current_head())
            step(config, revision)
            if database.dialect == "sqlite" and _dangling(connection):
                raise RuntimeError("a migration left rows that point at nothing")
    except DBAPIError as error:
        raise DatabaseUnavailable() from error
    finally:
        database.close()


def _without_foreign_keys(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA foreign_keys=OFF")


def _dangling(connection: Connection) -> bool:
    return bool(connection.exec_driver_sql("PRAGMA foreign_key_check").all())


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _knows(script: ScriptDirectory, revision: str) -> bool:
    try:
        return script.get_revision(revision) is not None
    except CommandError:
        return False


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    location = str(files("migrations")).replace("%", "%%")
    config.set_main_option("script_location", location)
    config.attributes["connection"] = connection
    return config
