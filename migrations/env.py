"""Run the migrations on a given connection, or on a new one for the `alembic` command."""

from typing import Any

from alembic import context
from sqlalchemy import Connection

from app.database.engines import create_migration_engine
from app.settings import Settings
from app.table_metadata import metadata


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transactional_ddl=True,
        render_as_batch=True,  # SQLite changes a table by copying it
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def _connect_and_migrate() -> None:
    engine = create_migration_engine(Settings())  # no foreign keys while a table is copied
    try:
        with engine.begin() as connection:
            _migrate(connection)
    finally:
        engine.dispose()


given: Any = context.config.attributes.get("connection")
if given is not None:
    _migrate(given)
else:
    _connect_and_migrate()
