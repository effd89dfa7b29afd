"""The migrations make exactly the tables of the code, in both directions."""

import re
from pathlib import Path
from uuid import UUID

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

from app.db import migrate
from app.db.engines import open_database
from app.db.errors import SchemaNewer, SchemaOlder
from app.metadata import metadata
from app.settings import Settings

pytestmark = pytest.mark.filterwarnings(
    "ignore:autogenerate skipping metadata-specified expression"
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path)


def written(settings: Settings) -> dict[str, set[str]]:
    """Every table and index as SQLite keeps it: name → its columns and constraints."""
    database = open_database(settings)
    with database.read() as session:
        rows = session.execute(
            text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        ).all()
    database.close()
    return {
        name: {line.strip().rstrip(",") for line in re.sub(r'"', "", sql).splitlines()} - {")"}
        for name, sql in rows
        if name != "alembic_version"
    }


def comparable(_object: object, name: str | None, *_: object) -> bool:
    """Alembic cannot compare an index with an order; `written` does."""
    return name != "ix_jobs_queue"


def differences(connection: Connection) -> list[object]:
    options = {"compare_type": True, "include_object": comparable}
    context = MigrationContext.configure(connection, opts=options)
    return list(compare_metadata(context, metadata))


@pytest.fixture
def by_metadata(tmp_path: Path) -> dict[str, set[str]]:
    settings = Settings(data_dir=tmp_path / "metadata")
    database = open_database(settings)
    metadata.create_all(database.write_engine)
    database.close()
    return written(settings)


def test_migrated_tables_are_those_of_the_code(
    settings: Settings, by_metadata: dict[str, set[str]]
) -> None:
    migrate.upgrade(settings)
    assert written(settings) == by_metadata
    database = open_database(settings)
    with database.read() as session:
        assert differences(session.connection()) == []
    database.close()


def test_down_to_nothing_and_up_again(settings: Settings, by_metadata: dict[str, set[str]]) -> None:
    migrate.upgrade(settings)
    migrate.downgrade(settings, "base")
    assert written(settings) == {}
    migrate.upgrade(settings)
    assert written(settings) == by_metadata


def test_the_local_caller_is_there_from_the_start(settings: Settings) -> None:
    migrate.upgrade(settings)
    database = open_database(settings)
    with database.read() as session:
        rows = session.execute(text("SELECT id, name, secret_hmac FROM api_keys")).all()
    database.close()
    assert [(UUID(hex=key_id), name, hmac) for key_id, name, hmac in rows] == [
        (UUID(int=0), "local", None)
    ]


def test_a_second_upgrade_changes_nothing(settings: Settings) -> None:
    migrate.upgrade(settings)
    before = settings.sqlite_path.read_bytes()
    migrate.upgrade(settings)
    assert settings.sqlite_path.read_bytes() == before


def test_a_step_that_fails_leaves_the_old_schema(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_late(config: Config, revision: str) -> None:
        real(config, revision)
        raise RuntimeError

    real = command.upgrade
    monkeypatch.setattr(command, "upgrade", fail_late)
    with pytest.raises(RuntimeError):
        migrate.upgrade(settings)
    assert written(settings) == {}


def test_an_empty_database_is_older(settings: Settings) -> None:
    database = open_database(settings)
    with pytest.raises(SchemaOlder, match="loraworks up"):
        migrate.check(database)
    database.close()


def test_a_schema_of_the_future_is_left_alone(settings: Settings) -> None:
    migrate.upgrade(settings)
    database = open_database(settings)
    migrate.check(database)
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'ff99'"))
        session.commit()
    with pytest.raises(SchemaNewer, match="ff99"):
        migrate.check(database)
    database.close()
    with pytest.raises(SchemaNewer, match="ff99"):
        migrate.upgrade(settings)
