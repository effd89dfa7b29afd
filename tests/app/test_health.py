"""Alive and ready."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

from app.database.engines import Database
from app.main import create_app
from app.resources import Resources
from app.settings import Settings
from tests.proxy import Proxy
from tests.servers import ValkeyServer, free_port

READY = ["/readyz", "/health", "/ping"]
Damage = Callable[[FastAPI], None]


def test_a_living_service_says_so_without_a_key(locked_client: TestClient) -> None:
    answer = locked_client.get("/livez")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", READY)
def test_a_ready_service_names_its_parts_without_a_key(
    locked_client: TestClient, path: str
) -> None:
    answer = locked_client.get(path)
    parts = {"database": "ok", "store": "ok", "disk": "ok"}
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "parts": parts})


def break_database(app: FastAPI) -> None:
    settings: Settings = app.state.settings
    app.state.resources.database.close()
    settings.sqlite_path.write_bytes(b"no database any more" * 100)


def fill_disk(app: FastAPI) -> None:
    """As it looks to one who keeps more in reserve than there is."""
    resources: Resources = app.state.resources
    short = resources.settings.model_copy(update={"min_free_bytes": 2**60})
    app.state.resources = replace(resources, settings=short)


def take_the_data_folder_away(app: FastAPI) -> None:
    resources: Resources = app.state.resources
    gone = resources.settings.data_dir.with_name("gone")
    elsewhere = resources.settings.model_copy(update={"data_dir": gone})
    app.state.resources = replace(resources, settings=elsewhere)


def break_store(app: FastAPI) -> None:
    settings: Settings = app.state.settings
    settings.artifacts_dir.write_bytes(b"no folder")


@pytest.mark.parametrize("database_kind", ["sqlite"])
@pytest.mark.parametrize("path", READY)
@pytest.mark.parametrize(
    ("damage", "parts"),
    [
        ([break_database], {"database": "database_refused"}),
        ([break_store], {"store": "storage_unavailable"}),
        ([fill_disk], {"disk": "disk_full"}),
        ([take_the_data_folder_away], {"disk": "data_folder_unusable"}),
        (
            [break_database, break_store],
            {"database": "database_refused", "store": "storage_unavailable"},
        ),
    ],
    ids=lambda each: "+".join(each) if isinstance(each, dict) else "",
)
def test_not_ready_while_a_part_is_broken(
    app: FastAPI, settings: Settings, path: str, damage: list[Damage], parts: dict[str, str]
) -> None:
    with TestClient(app) as client:
        for harm in damage:
            harm(app)
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, next(iter(parts.values())))
        assert {each["at"]: each["code"] for each in answer.json()["errors"]} == parts
        assert int(answer.headers["Retry-After"]) >= 1
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


def test_not_ready_while_it_is_being_stopped(app: FastAPI, client: TestClient) -> None:
    app.state.leaving.set()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["code"]) == (503, "stopping")
    assert client.get("/livez").status_code == 200
    assert client.get("/v1/jobs").status_code == 200


def test_a_broker_is_shown_and_not_needed(settings: Settings, valkey: ValkeyServer) -> None:
    def parts(url: str) -> dict[str, str]:
        with TestClient(create_app(settings.model_copy(update={"broker_url": url}))) as client:
            answer = client.get("/readyz")
        assert answer.status_code == 200
        found: dict[str, str] = answer.json()["parts"]
        return found

    others = {"database": "ok", "store": "ok", "disk": "ok"}
    assert parts(valkey.url()) == {**others, "broker": "ok"}
    assert parts(f"redis://127.0.0.1:{free_port()}/0") == {**others, "broker": "down"}
    with Proxy(valkey.port) as proxy:
        proxy.blackhole()
        assert parts(valkey.url(port=proxy.port)) == {**others, "broker": "down"}
    with valkey.client() as client:
        client.config_set("maxmemory", 1)
        try:
            assert parts(valkey.url()) == {**others, "broker": "down"}
        finally:
            client.config_set("maxmemory", 0)
