"""Alive and ready."""

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from app.db.engines import Database
from app.settings import Settings

READY = ["/readyz", "/health", "/ping"]


@pytest.mark.parametrize("path", ["/livez", *READY])
def test_a_good_service_says_so_without_a_key(locked_client: TestClient, path: str) -> None:
    answer = locked_client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", READY)
def test_not_ready_while_the_database_is_broken(
    client: TestClient, settings: Settings, path: str
) -> None:
    client.app.state.resources.database.close()  # type: ignore[attr-defined]
    settings.sqlite_path.write_bytes(b"no database any more" * 100)
    answer = client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert str(settings.data_dir) not in answer.text
    assert client.get("/livez").status_code == 200


def test_not_ready_when_the_schema_was_changed_meanwhile(
    client: TestClient, database: Database
) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'ff99'"))
        session.commit()
    assert client.get("/readyz").json()["code"] == "schema_newer"
    assert client.get("/health").json()["error_type"] == "Unhealthy"
