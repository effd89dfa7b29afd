"""Liveness and readiness."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from fastapi import FastAPI
from sqlalchemy import text
from starlette.testclient import TestClient

from app.database.engines import Database
from app.main import create_app
from app.queue.dispatch import BrokerUnavailable, require_writable_broker
from app.resources import Resources
from app.settings import Settings
from tests.proxy import Proxy
from tests.servers import ValkeyServer, free_port

READY = ["/readyz", "/health", "/ping"]
Damage = Callable[[FastAPI], None]


def test_livez_needs_no_api_key(anonymous_client: TestClient) -> None:
    response = anonymous_client.get("/livez")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize("path", READY)
def test_readyz_lists_parts_without_an_api_key(anonymous_client: TestClient, path: str) -> None:
    response = anonymous_client.get(path)
    parts = {"database": "ok", "store": "ok", "disk": "ok"}
    assert (response.status_code, response.json()) == (200, {"status": "ok", "parts": parts})


def break_database(app: FastAPI) -> None:
    settings: Settings = app.state.settings
    app.state.resources.database.close()
    settings.default_sqlite_path.write_bytes(b"no database any more" * 100)


def fill_disk(app: FastAPI) -> None:
    """Set a reserve that is larger than the disk."""
    resources: Resources = app.state.resources
    short = resources.settings.model_copy(update={"min_free_bytes": 2**60})
    app.state.resources = replace(resources, settings=short)


def remove_data_directory(app: FastAPI) -> None:
    resources: Resources = app.state.resources
    missing = resources.settings.data_dir.with_name("gone")
    elsewhere = resources.settings.model_copy(update={"data_dir": missing})
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
        ([fill_disk], {"disk": "insufficient_disk_space"}),
        ([remove_data_directory], {"disk": "data_folder_unusable"}),
        (
            [break_database, break_store],
            {"database": "database_refused", "store": "storage_unavailable"},
        ),
    ],
    ids=lambda each: "+".join(each) if isinstance(each, dict) else "",
)
def test_not_ready_if_a_part_fails(
    app: FastAPI, settings: Settings, path: str, damage: list[Damage], parts: dict[str, str]
) -> None:
    with TestClient(app) as client:
        for harm in damage:
            harm(app)
        response = client.get(path)
        assert (response.status_code, response.json()["code"]) == (503, next(iter(parts.values())))
        assert {each["at"]: each["code"] for each in response.json()["errors"]} == parts
        assert int(response.headers["Retry-After"]) >= 1
        assert str(settings.data_dir) not in response.text
        assert client.get("/livez").status_code == 200


def test_not_ready_if_the_schema_changed(client: TestClient, database: Database) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'ff99'"))
    assert client.get("/readyz").json()["code"] == "schema_newer"
    assert client.get("/health").json()["error_type"] == "Unhealthy"


def test_not_ready_during_shutdown(app: FastAPI, client: TestClient) -> None:
    app.state.shutting_down.set()
    response = client.get("/readyz")
    assert (response.status_code, response.json()["code"]) == (503, "stopping")
    assert client.get("/livez").status_code == 200
    assert client.get("/v1/jobs").status_code == 200


def test_a_broker_that_hangs_up_is_asked_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        calls = []

        def hang_up() -> None:
            with suppress(OSError):  # the test has ended
                while True:
                    calls.append(listener.accept()[0])
                    calls[-1].close()

        answering = threading.Thread(target=hang_up)
        answering.start()
        with pytest.raises(BrokerUnavailable):
            require_writable_broker(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        listener.shutdown(socket.SHUT_RDWR)
        answering.join()
    assert len(calls) == 1


def test_broker_is_reported_but_not_required(settings: Settings, valkey: ValkeyServer) -> None:
    def parts(url: str) -> dict[str, str]:
        with TestClient(create_app(settings.model_copy(update={"broker_url": url}))) as client:
            response = client.get("/readyz")
        assert response.status_code == 200
        parts_found: dict[str, str] = response.json()["parts"]
        return parts_found

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
