"""The API during a database outage: it responds 503, `/predict` keeps working, and it recovers."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import app.auth.authenticator
import app.database.sqlite
from app.auth import secrets, service
from app.main import create_app
from app.resources import Resources
from app.settings import Settings
from tests.app.cli.conftest import serving
from tests.app.serving.conftest import Publish, publish
from tests.proxy import Proxy
from tests.servers import PostgresServer
from tests.waiting import wait_until

__all__ = ["publish"]

LORA: dict[str, Any] = {"method": {"type": "lora"}}
TEXT = {"inputs": "a good film"}
SOON = 10.0  # seconds


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A separate PostgreSQL server, because the tests stop it."""
    made = PostgresServer()
    try:
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    with Proxy(server.port) as made:
        yield made
        made.open()


@pytest.fixture
def database_kind() -> str:
    return "postgresql"


@pytest.fixture
def settings(
    tmp_path: Path,
    database_kind: str,
    server: PostgresServer,
    migrated: Path,
    request: pytest.FixtureRequest,
) -> Iterator[Settings]:
    """Settings with auth on, behind the proxy if the test requests it."""
    made = Settings(data_dir=tmp_path / "data", auth="on", log_level="ERROR")
    made.data_dir.mkdir()
    if database_kind == "sqlite":
        made.default_sqlite_path.write_bytes(migrated.read_bytes())
        yield made
        return
    url = server.new_database()
    proxied = "proxy" in request.fixturenames
    port = request.getfixturevalue("proxy").port if proxied else server.port
    place = server.url(url.rpartition("/")[2], port=port)
    yield made.model_copy(update={"database_url": place})
    server.drop(url)


@pytest.fixture
def http(settings: Settings, resources: Resources) -> Iterator[httpx2.Client]:
    """A client with an API key, which is looked up on each request instead of every half minute."""
    with resources.database.write() as session:
        key = service.create_key(
            session, pepper=secrets.load_or_create_pepper(settings), name="test"
        ).text
    with (
        pytest.MonkeyPatch.context() as patch,
        serving(create_app(settings)) as url,
        httpx2.Client(
            base_url=url, timeout=60, headers={"Authorization": f"Bearer {key}"}
        ) as client,
    ):
        patch.setattr(app.auth.authenticator, "TTL_SECONDS", 0)
        yield client


def timed(http: httpx2.Client, method: str, path: str, **more: Any) -> httpx2.Response:
    began = time.monotonic()
    response = http.request(method, path, **more)
    assert time.monotonic() - began < SOON, path
    return response


def test_service_survives_a_database_outage(
    http: httpx2.Client, server: PostgresServer, publish: Publish
) -> None:
    publish()
    assert http.post("/predict", json=TEXT).headers["X-Model-Version"] == "sentiment:1"
    job = http.post("/v1/jobs", json=LORA).json()["id"]
    for stop in (server.stop, server.kill):
        stop()
        try:
            for method, path, body in (
                ("GET", "/v1/jobs", None),
                ("GET", f"/v1/jobs/{job}", None),
                ("GET", "/v1/models", None),
                ("POST", "/v1/jobs", LORA),
            ):
                response = timed(http, method, path, json=body)
                assert response.status_code == 503
                assert response.headers["content-type"] == "application/problem+json"
                assert response.json()["code"] == "database_unavailable"
                assert int(response.headers["Retry-After"]) >= 1
            for _ in range(5):
                response = timed(http, "POST", "/predict", json=TEXT)
                assert response.headers["X-Model-Version"] == "sentiment:1"
            unseen = timed(http, "POST", "/models/other/predict", json=TEXT)
            assert (unseen.status_code, unseen.json()["error_type"]) == (503, "Unhealthy")
            ready = timed(http, "GET", "/readyz")
            assert ready.status_code == 503
            assert [each["at"] for each in ready.json()["errors"]] == ["database"]
            assert timed(http, "GET", "/livez").status_code == 200
            metrics = timed(http, "GET", "/metrics")
            assert metrics.status_code == 200
            assert "\nloraworks_database_up 0.0\n" in metrics.text
        finally:
            server.start()
        assert http.get(f"/v1/jobs/{job}").json()["state"] == "queued"
        assert http.get("/readyz").status_code == 200
        assert "\nloraworks_database_up 1.0\n" in http.get("/metrics").text
    publish()
    wait_until(
        lambda: http.post("/predict", json=TEXT).headers["X-Model-Version"] == "sentiment:2",
        seconds=3,
        what="a promotion after the outage",
    )
    assert len(http.get("/v1/jobs").json()["data"]) == 1


def test_predict_waits_briefly_for_an_unresponsive_database(
    http: httpx2.Client, proxy: Proxy, publish: Publish
) -> None:
    publish()
    assert http.post("/predict", json=TEXT).status_code == 200
    proxy.blackhole()
    time.sleep(1)  # cached references are stale now
    began = time.monotonic()
    for _ in range(20):
        response = http.post("/predict", json=TEXT)
        assert response.headers["X-Model-Version"] == "sentiment:1"
    assert time.monotonic() - began < SOON
    ready = timed(http, "GET", "/readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "readiness_timeout")
    assert "\nloraworks_database_up 0.0\n" in timed(http, "GET", "/metrics").text
    proxy.open()
    proxy.cut()
    wait_until(lambda: http.get("/readyz").status_code == 200, what="the database to respond again")
    assert http.get("/v1/jobs").status_code == 200


class TestSqlite:
    """A writer that holds its lock. Reads still work."""

    @pytest.fixture
    def database_kind(self, monkeypatch: pytest.MonkeyPatch) -> str:
        monkeypatch.setattr(app.database.sqlite, "BUSY_TIMEOUT_SECONDS", 1)
        return "sqlite"

    def test_locked_database_is_reported_as_unavailable(
        self, http: httpx2.Client, resources: Resources, publish: Publish
    ) -> None:
        publish()
        with resources.database.write() as session:
            session.connection()  # begins the transaction
            response = timed(http, "POST", "/v1/jobs", json=LORA)
            assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
            assert int(response.headers["Retry-After"]) >= 1
            assert timed(http, "GET", "/v1/jobs").status_code == 200
            assert timed(http, "GET", "/readyz").status_code == 200
            assert timed(http, "POST", "/predict", json=TEXT).status_code == 200
        assert http.post("/v1/jobs", json=LORA).status_code == 202
