"""Starting and stopping."""

import json

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from app.database import postgresql
from app.database.engines import Database
from app.database.errors import DatabaseUnreachable, SchemaNewer, SchemaOlder
from app.main import create_app
from app.settings import Settings
from tests.servers import free_port


def test_nothing_is_opened_before_the_start(settings: Settings) -> None:
    fresh = settings.model_copy(update={"data_dir": settings.data_dir / "none"})
    create_app(fresh)
    assert not fresh.data_dir.exists()


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_a_database_that_was_never_migrated_is_refused(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    settings.sqlite_path.unlink()
    with pytest.raises(SchemaOlder, match="loraworks up"), TestClient(create_app(settings)):
        pass
    last = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert (last["event"], last["code"]) == ("not_started", "schema_older")


def test_a_database_from_the_future_is_refused(settings: Settings, database: Database) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'ff99'"))
        session.commit()
    with pytest.raises(SchemaNewer, match="ff99"), TestClient(create_app(settings)):
        pass


@pytest.mark.parametrize("database_kind", ["sqlite"])
def test_stopping_leaves_no_write_ahead_log(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        assert client.get("/readyz").status_code == 200
    assert {path.name for path in settings.data_dir.glob("loraworks.sqlite3*")} == {
        "loraworks.sqlite3"
    }


def test_a_database_that_is_not_there_is_told_in_one_line(
    settings: Settings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "START_SECONDS", 0.1)
    url = f"postgresql://someone:passw0rd@127.0.0.1:{free_port()}/nowhere"
    app = create_app(settings.model_copy(update={"database_url": url}))
    with pytest.raises(DatabaseUnreachable), TestClient(app):
        pass
    last = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert (last["event"], last["code"]) == ("not_started", "database_unreachable")
    assert "passw0rd" not in json.dumps(last)
