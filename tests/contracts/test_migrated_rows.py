"""A database in use keeps every row through the migrations, up and down."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import JSON, Connection, Uuid, column, inspect, select, table, update

from app.auth.tables import ALL_SCOPES
from app.database import migrations
from app.database.engines import create_migration_engine
from app.settings import Settings
from tests.servers import PostgresServer
from tests.slow import DATABASES, MOSTLY_SQLITE

FIRST = "0001"
AFTER_0004 = (
    *("predictions:read", "predictions:write", "webhooks:admin"),
    *("labels:read", "labels:write"),
    "feedback:write",
)
BEFORE_0004 = tuple(scope for scope in ALL_SCOPES if scope not in AFTER_0004)
BEFORE_0029 = "keys:admin"
ROWS = Path(__file__).with_name("rows_of_0001.sql")
RENAMED = {"lane": "device_class"}  # by 0011
CHANGED = {"spec_version", "spec_sha256"}  # by 0011: see `test_renamed_rows.py`

Columns = dict[str, list[str]]  # of each table


@contextmanager
def connected(settings: Settings) -> Iterator[Connection]:
    engine = create_migration_engine(settings)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.fixture(params=DATABASES)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """A database of the first schema, in use."""
    server: PostgresServer | None = None
    url = None
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        url = server.empty_database()
    made = Settings(data_dir=tmp_path, database_url=url)
    migrations.upgrade(made, FIRST)
    with connected(made) as connection:
        for statement in ROWS.read_text().split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(statement)
    yield made
    if server is not None:
        server.drop(made.sqlalchemy_url)


@pytest.fixture
def columns(settings: Settings) -> Columns:
    """The columns of the first schema."""
    with connected(settings) as connection:
        look = inspect(connection)
        return {
            name: [each["name"] for each in look.get_columns(name) if each["name"] not in CHANGED]
            for name in look.get_table_names()
            if name != "alembic_version"
        }


def kept(settings: Settings, columns: Columns) -> dict[str, list[str]]:
    with connected(settings) as connection:
        look = inspect(connection)
        found = {}
        for name, wanted in columns.items():
            present = {each["name"] for each in look.get_columns(name)}
            names = (each if each in present else RENAMED[each] for each in wanted)
            rows = connection.execute(select(table(name, *map(column, names))))
            found[name] = sorted(map(repr, rows))
        return found


def test_upgrade_and_downgrade_keep_all_rows(settings: Settings, columns: Columns) -> None:
    before = kept(settings, columns)
    assert all(before.values())
    migrations.upgrade(settings)
    assert kept(settings, columns) == before
    migrations.downgrade(settings, FIRST)
    assert kept(settings, columns) == before
    migrations.upgrade(settings)
    assert kept(settings, columns) == before


def test_new_columns_have_values_in_old_rows(settings: Settings) -> None:
    migrations.upgrade(settings)
    new = {
        "jobs": "kind, running_seconds, resume_exact, dispatched_at, dispatch_count",
        "attempts": "device, first_step",
        "workers": "devices",
    }
    found = kept(settings, {name: columns.split(", ") for name, columns in new.items()})
    assert {name: len(set(rows)) for name, rows in found.items()} == dict.fromkeys(new, 1)
    assert found["attempts"][0] == "(None, 0)"


def test_full_access_key_keeps_full_access(settings: Settings) -> None:
    keys = table(
        "api_keys",
        *(column("id", Uuid()), column("name"), column("scopes", JSON()), column("created_at")),
    )
    before = {"everything": [*BEFORE_0004, BEFORE_0029], "some": ["predict"]}
    with connected(settings) as connection:
        for name, scopes in before.items():
            connection.execute(
                keys.insert().values(id=uuid4(), name=name, scopes=scopes, created_at=1.0)
            )

    def found() -> dict[str, list[str]]:
        with connected(settings) as connection:
            rows = connection.execute(select(keys).where(keys.c.name != "local")).all()
        return {row.name: row.scopes for row in rows}

    migrations.upgrade(settings)
    assert found() == {"everything": [*BEFORE_0004, *AFTER_0004], "some": ["predict"]}
    assert set(found()["everything"]) == set(ALL_SCOPES)
    migrations.downgrade(settings, "0002")
    assert found() == before


@pytest.mark.parametrize("settings", MOSTLY_SQLITE, indirect=True)
def test_downgrade_removes_only_prediction_runs(settings: Settings) -> None:
    migrations.upgrade(settings)
    jobs = table("jobs", column("id"), column("kind"))
    with connected(settings) as connection:
        before = connection.execute(select(jobs)).all()
        first = before[0].id
        connection.execute(update(jobs).where(jobs.c.id == first).values(kind="prediction"))
    migrations.downgrade(settings, "0002")
    migrations.upgrade(settings)
    with connected(settings) as connection:
        assert {row.id for row in connection.execute(select(jobs))} == {
            row.id for row in before[1:]
        }


@pytest.mark.parametrize("settings", MOSTLY_SQLITE, indirect=True)
def test_models_find_their_base_again_after_a_downgrade(settings: Settings) -> None:
    migrations.upgrade(settings)
    named = ("kind", "key", "manifest_sha256", "bytes", "created_at")
    artifacts = table(
        "artifacts", column("id", Uuid()), column("base_id", Uuid()), *map(column, named)
    )
    base, model = uuid4(), uuid4()
    with connected(settings) as connection:
        for id_, kind, base_id in ((base, "base", None), (model, "model", base)):
            values = dict(zip(named, (kind, str(id_), "0" * 64, 1, 1.0), strict=True))
            connection.execute(artifacts.insert().values(id=id_, base_id=base_id, **values))
    for _ in range(2):
        migrations.downgrade(settings, "0010")
        migrations.upgrade(settings)
        with connected(settings) as connection:
            rows = connection.execute(select(artifacts.c.id, artifacts.c.base_id)).all()
        found = {row.id: row.base_id for row in rows if row.id in (base, model)}
        assert found == {base: None, model: base}
