"""Fixtures: a migrated database, the application and a client, new for every test."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from app.auth import secrets, service
from app.database.engines import Database
from app.database.migrations import upgrade
from app.main import create_app
from app.resources import Resources, open_resources
from app.sandbox import runner
from app.settings import Settings
from tests.in_process_sandbox import run_in_process
from tests.servers import PostgresServer

# `LORAWORKS_TEST_DATABASE=postgresql pytest tests/app tests/worker` runs them all on PostgreSQL.
KIND = os.environ.get("LORAWORKS_TEST_DATABASE", "sqlite")


@pytest.fixture(autouse=True)
def _clear_settings_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("LORAWORKS_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _in_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read what is sent without a child process, except in tests that use `in_child`."""
    if "in_child" not in request.fixturenames:
        monkeypatch.setattr(runner, "run_lora_core_sandboxed", run_in_process)


@pytest.fixture
def in_child() -> None:
    """Read what is sent in a child process with resource limits, as the service does."""


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file, copied for each test because that is faster than migrating."""
    settings = Settings(data_dir=tmp_path_factory.mktemp("template"))
    upgrade(settings)
    assert not settings.default_sqlite_path.with_name("loraworks.sqlite3-wal").exists()
    return settings.default_sqlite_path


@pytest.fixture
def database_kind() -> str:
    """`sqlite`, `sqlite-truncate` or `postgresql`."""
    return KIND


@pytest.fixture
def settings(
    tmp_path: Path, database_kind: str, request: pytest.FixtureRequest
) -> Iterator[Settings]:
    """Settings with an initialized data directory and a migrated database."""
    made = Settings(data_dir=tmp_path / "data", allowed_hosts=("testserver",), engine="torch-fp32")
    made.data_dir.mkdir()
    if database_kind == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.new_database()
        yield made.model_copy(update={"database_url": url})
        server.drop(url)
        return
    shutil.copyfile(request.getfixturevalue("migrated"), made.default_sqlite_path)
    truncate = f"sqlite:///{made.default_sqlite_path}?journal_mode=truncate"
    yield made.model_copy(update={"database_url": truncate if "-" in database_kind else None})


@pytest.fixture
def resources(settings: Settings) -> Iterator[Resources]:
    """The resources of a worker or of the command line."""
    opened = open_resources(settings)
    yield opened
    opened.close()


@pytest.fixture
def database(resources: Resources) -> Database:
    """The database of `settings`."""
    return resources.database


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application with auth off. It opens its own resources in the same data directory."""
    return create_app(settings)


@pytest.fixture(scope="session")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The OpenAPI description, which takes a second to make. Tests must not change it."""
    app = create_app(Settings(data_dir=tmp_path_factory.mktemp("described")))
    description: dict[str, Any] = json.loads(json.dumps(app.openapi()))
    return description


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    """A client of the running application."""
    with TestClient(app) as running:
        yield running


@pytest.fixture
def auth_settings(settings: Settings) -> Settings:
    """The same settings with auth on."""
    return settings.model_copy(update={"auth": "on"})


@pytest.fixture
def anonymous_client(auth_settings: Settings) -> Iterator[TestClient]:
    """A client without an API key, with auth on."""
    with TestClient(create_app(auth_settings)) as running:
        yield running


@pytest.fixture
def new_key(database: Database, auth_settings: Settings) -> Callable[..., service.CreatedKey]:
    """Creates an API key: `new_key("jobs:read", days=1)`. Without scopes, it has all of them."""

    def make(*scopes: str, name: str = "test", days: float | None = None) -> service.CreatedKey:
        chosen = {"scopes": scopes} if scopes else {}
        with database.write() as session:
            return service.create_key(
                session,
                pepper=secrets.load_or_create_pepper(auth_settings),
                name=name,
                days=days,
                **chosen,
            )

    return make
