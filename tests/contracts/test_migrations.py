"""The migrations make exactly the tables of the code, in both directions, on each database."""

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.orm import Session

from app.auth.tables import ApiKey
from app.database import migrations
from app.database.engines import create_migration_engine, open_database
from app.database.errors import DatabaseOperationRefused, SchemaOutdated, SchemaTooNew
from app.errors import AppError, InsufficientStorage
from app.settings import Settings
from app.table_metadata import metadata
from tests.servers import PostgresServer
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.filterwarnings(
    "ignore:autogenerate skipping metadata-specified expression"
)

Schema = dict[str, set[str]]  # name of a table or index → its columns and constraints
Empty = Callable[[], Settings]

POSTGRES_SCHEMA = """
SELECT conrelid::regclass::text, conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND contype <> 'n' -- `is_nullable` below
UNION SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION SELECT table_name, concat_ws(' ', column_name, data_type, character_maximum_length,
  is_nullable, column_default) FROM information_schema.columns WHERE table_schema = 'public'
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Empty]:
    """Creates databases without tables."""
    made: list[Settings] = []
    server: PostgresServer | None = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")

    def make() -> Settings:
        url = server.empty_database() if server else None
        made.append(Settings(data_dir=tmp_path / str(len(made)), database_url=url))
        return made[-1]

    yield make
    if server is not None:
        for each in made:
            server.drop(each.sqlalchemy_url)


@pytest.fixture
def settings(empty: Empty) -> Settings:
    return empty()


def written(settings: Settings) -> Schema:
    database = open_database(settings)
    look = _written_by_sqlite if database.write_engine.name == "sqlite" else _written_by_postgres
    with database.read() as session:
        schema = look(session)
    database.close()
    return {name: lines for name, lines in schema.items() if not name.startswith("alembic_version")}


def _written_by_sqlite(session: Session) -> Schema:
    rows = session.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
    return {
        name: {line.strip().rstrip(",") for line in re.sub(r'"', "", sql).splitlines()} - {")"}
        for name, sql in rows
    }


def _written_by_postgres(session: Session) -> Schema:
    schema: Schema = {}
    for name, line in session.execute(text(POSTGRES_SCHEMA)):
        schema.setdefault(name, set()).add(line)
    return schema


def comparable(_object: object, name: str | None, *_: object) -> bool:
    """Alembic cannot compare an index with an order; `written` does."""
    return name != "ix_jobs_queue"


def differences(connection: Connection) -> list[object]:
    options = {"compare_type": True, "include_object": comparable}
    context = MigrationContext.configure(connection, opts=options)
    return list(compare_metadata(context, metadata))


@pytest.fixture
def by_metadata(empty: Empty) -> Schema:
    settings = empty()
    engine = create_migration_engine(settings)
    metadata.create_all(engine)
    engine.dispose()
    return written(settings)


def test_metadata_has_the_tables_of_every_package() -> None:
    """In a process of its own, since other tests import more."""
    program = "import sys, app.table_metadata; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    modules = {f"app.{path.parent.name}.tables" for path in (ROOT / "app").glob("*/tables.py")}
    assert modules <= set(run.stdout.split())


def test_migrated_tables_match_the_models(settings: Settings, by_metadata: Schema) -> None:
    migrations.upgrade(settings)
    assert written(settings) == by_metadata
    database = open_database(settings)
    with database.read() as session:
        assert differences(session.connection()) == []
    database.close()


def test_full_downgrade_and_upgrade(settings: Settings, by_metadata: Schema) -> None:
    migrations.upgrade(settings)
    migrations.downgrade(settings, "base")
    assert written(settings) == {}
    migrations.upgrade(settings)
    assert written(settings) == by_metadata


def test_local_caller_exists_after_migration(settings: Settings) -> None:
    migrations.upgrade(settings)
    database = open_database(settings)
    with database.read() as session:
        rows = [(key.id, key.name, key.secret_hmac) for key in session.query(ApiKey)]
    database.close()
    assert rows == [(UUID(int=0), "local", None)]


def test_second_upgrade_is_a_no_op(settings: Settings) -> None:
    migrations.upgrade(settings)
    before = written(settings)
    migrations.upgrade(settings)
    assert written(settings) == before


def test_failed_migration_keeps_the_old_schema(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_late(config: Config, revision: str) -> None:
        real(config, revision)
        raise RuntimeError

    real = command.upgrade
    monkeypatch.setattr(command, "upgrade", fail_late)
    with pytest.raises(RuntimeError):
        migrations.upgrade(settings)
    assert written(settings) == {}


@pytest.mark.parametrize("empty", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("statements", "error"),
    [
        (["SELECT 1 FROM missing"], DatabaseOperationRefused),
        (["PRAGMA max_page_count = 1", "CREATE TABLE full (x)"], InsufficientStorage),
    ],
)
def test_failing_statement_is_no_outage(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    statements: list[str],
    error: type[AppError],
) -> None:
    def fail(config: Config, _revision: str) -> None:
        for statement in statements:
            config.attributes["connection"].exec_driver_sql(statement)

    monkeypatch.setattr(command, "upgrade", fail)
    with pytest.raises(error):
        migrations.upgrade(settings)


def test_empty_database_is_reported_as_outdated(settings: Settings) -> None:
    database = open_database(settings)
    with pytest.raises(SchemaOutdated, match="loraworks up") as refused:
        migrations.check_schema_revision(database)
    database.close()
    name = Path(database.write_engine.url.database or "").name
    kind = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}[database.write_engine.name]
    assert f"{kind} database '{name}' has no schema yet" in str(refused.value)
    assert str(settings.data_dir) not in str(refused.value)  # the message is public


def test_newer_schema_is_not_changed(settings: Settings) -> None:
    migrations.upgrade(settings)
    database = open_database(settings)
    migrations.check_schema_revision(database)
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'ff99'"))
    with pytest.raises(SchemaTooNew, match="ff99"):
        migrations.check_schema_revision(database)
    database.close()
    with pytest.raises(SchemaTooNew, match="ff99"):
        migrations.upgrade(settings)


@pytest.mark.parametrize("empty", ["postgresql"], indirect=True)
def test_concurrent_upgrades_are_serialized(settings: Settings, by_metadata: Schema) -> None:
    program = (
        "from app.database import migrations; from app.settings import Settings; "
        "migrations.upgrade({})"
    )
    environ = os.environ | {"LORAWORKS_DATABASE_URL": settings.sqlalchemy_url}
    database = open_database(settings)
    with database.write() as session:
        session.execute(text(f"SELECT pg_advisory_xact_lock({migrations.MIGRATION_LOCK_ID})"))
        racers = [
            subprocess.Popen([sys.executable, "-c", program.format("Settings()")], env=environ)
            for _ in range(2)
        ]
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        wait_until(lambda: session.scalar(waiting) == 2, seconds=40, what="both at the lock")
    assert [racer.wait(60) for racer in racers] == [0, 0]
    database.close()
    assert written(settings) == by_metadata
