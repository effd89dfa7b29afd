"""Startup and shutdown."""

import json
from dataclasses import fields

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from app.database import postgresql
from app.database.engines import Database
from app.database.errors import DatabaseUnreachable, SchemaOutdated, SchemaTooNew
from app.http.dependencies import AppState
from app.main import create_app
from app.settings import Settings
from tests.servers import free_port


def test_app_opens_nothing_before_startup(settings: Settings) -> None:
    fresh = settings.model_copy(update={"data_dir": settings.data_dir / "none"})
    create_app(fresh)
    assert not fresh.data_dir.exists()


def test_startup_sets_every_field_of_the_state(auth_settings: Settings) -> None:
    app = create_app(auth_settings)
    with TestClient(app):
        assert vars(app.state).keys() == {field.name for field in fields(AppState)}


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_startup_fails_without_schema(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    settings.default_sqlite_path.unlink()
    with pytest.raises(SchemaOutdated, match="loraworks up"), TestClient(create_app(settings)):
        pass
    last = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert (last["event"], last["code"]) == ("not_started", "schema_older")


def test_startup_fails_with_a_newer_schema(settings: Settings, database: Database) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'ff99'"))
    with pytest.raises(SchemaTooNew, match="ff99"), TestClient(create_app(settings)):
        pass


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_shutdown_leaves_no_write_ahead_log(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        assert client.get("/readyz").status_code == 200
    assert {path.name for path in settings.data_dir.glob("loraworks.sqlite3*")} == {
        "loraworks.sqlite3"
    }


def test_unreachable_database_is_reported_in_one_line(
    settings: Settings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "STARTUP_TIMEOUT_SECONDS", 0.1)
    url = f"postgresql://someone:passw0rd@127.0.0.1:{free_port()}/nowhere"
    app = create_app(settings.model_copy(update={"database_url": url}))
    with pytest.raises(DatabaseUnreachable), TestClient(app):
        pass
    last = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert (last["event"], last["code"]) == ("not_started", "database_unreachable")
    assert "passw0rd" not in json.dumps(last)
