"""PostgreSQL: durability and timeouts."""

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InternalError, OperationalError
from sqlalchemy.orm import Session

from app.database import migrations, postgresql
from app.database.engines import Database, open_database
from app.database.errors import (
    OUTAGE_ERRORS,
    DatabaseUnavailable,
    DatabaseUnreachable,
    to_app_error,
)
from app.settings import Settings
from tests.proxy import Proxy
from tests.servers import HOST, PASSWORD, PostgresServer, free_port


@pytest.fixture
def database_kind() -> str:
    return "postgresql"


@pytest.fixture
def own() -> Iterator[PostgresServer]:
    """A server that a test may stop."""
    server = PostgresServer()
    try:
        yield server
    finally:
        server.remove()


def shown(session: Session, name: str) -> object:
    return session.scalar(text(f"SHOW {name}"))


def test_sessions_are_durable_and_have_timeouts(database: Database) -> None:
    with database.write() as session:
        assert shown(session, "transaction_isolation") == "read committed"
        assert shown(session, "transaction_read_only") == "off"
        assert shown(session, "synchronous_commit") == "on"
    with database.read() as session:
        assert shown(session, "transaction_isolation") == "repeatable read"
        assert shown(session, "transaction_read_only") == "on"
    for each in (database.write, database.read):
        with each() as session:
            assert shown(session, "statement_timeout") == "30s"
            assert shown(session, "lock_timeout") == "10s"
            assert shown(session, "idle_in_transaction_session_timeout") == "1min"
            assert shown(session, "application_name") == "loraworks"


def test_database_defaults_do_not_disable_synchronous_commit(
    settings: Settings, postgres: PostgresServer
) -> None:
    name = settings.sqlalchemy_url.rpartition("/")[2]
    postgres.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    database = open_database(settings)
    with database.write() as session:
        assert shown(session, "synchronous_commit") == "on"
    database.close()


def test_options_of_the_url_are_applied(settings: Settings) -> None:
    url = f"{settings.sqlalchemy_url}?options=-c%20work_mem=9MB&application_name=mine"
    database = open_database(settings.model_copy(update={"database_url": url}))
    with database.write() as session:
        assert shown(session, "work_mem") == "9MB"
        assert shown(session, "application_name") == "mine"
        assert shown(session, "synchronous_commit") == "on"
    database.close()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_all_postgresql_url_schemes_are_accepted(settings: Settings, scheme: str) -> None:
    url = f"{scheme}:{settings.sqlalchemy_url.partition(':')[2]}"
    database = open_database(settings.model_copy(update={"database_url": url}))
    migrations.check_schema_revision(database)
    database.close()


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"host": "no.such.host.invalid"}, "resolve"),
        ({"port": "closed"}, "refused"),
        ({"password": "hunter2"}, "password authentication failed"),
        ({"database": "nowhere"}, 'database "nowhere" does not exist'),
    ],
)
def test_unreachable_database_is_reported_without_its_password(
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    wrong: dict[str, str],
    reason: str,
) -> None:
    monkeypatch.setattr(postgresql, "STARTUP_TIMEOUT_SECONDS", 0.3)
    host, database = wrong.get("host", HOST), wrong.get("database", "postgres")
    password = wrong.get("password", PASSWORD)
    port = free_port() if "port" in wrong else postgres.port
    url = f"postgresql://loraworks:{password}@{host}:{port}/{database}"
    with pytest.raises(DatabaseUnreachable, match=reason) as caught:
        open_database(Settings(database_url=url))
    assert f"{database!r} on {host}:{port}" in str(caught.value)
    assert password not in str(caught.value)


def test_starting_server_is_awaited(own: PostgresServer) -> None:
    starting = threading.Timer(0.5, own.start)
    starting.start()
    database = open_database(Settings(database_url=own.url()))
    starting.join()
    with database.read() as session:
        assert session.scalar(text("SELECT 1")) == 1
    database.close()


def test_connections_recover_after_a_crash_without_data_loss(own: PostgresServer) -> None:
    own.start()
    database = open_database(Settings(database_url=own.new_database()))
    rename = text("UPDATE api_keys SET name = 'kept'")
    with database.write() as session:
        session.execute(rename)
    with database.read() as session:
        session.scalar(text("SELECT 1"))
    own.kill()
    with pytest.raises(DatabaseUnavailable):
        migrations.check_schema_revision(database)
    own.start()
    with database.read() as session:
        assert session.scalar(text("SELECT name FROM api_keys")) == "kept"
    with database.write() as session:
        session.execute(rename)
    database.close()


def test_unresponsive_server_does_not_block_forever(
    settings: Settings, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "CLIENT_TIMEOUT_SECONDS", 0.5)
    with Proxy(postgres.port) as proxy:
        url = settings.sqlalchemy_url.replace(f":{postgres.port}/", f":{proxy.port}/")
        database = open_database(settings.model_copy(update={"database_url": url}))
        with database.write() as session:
            session.scalar(text("SELECT 1"))
            proxy.blackhole()
            began = time.monotonic()
            with pytest.raises(OperationalError):
                session.scalar(text("SELECT 2"))
            assert time.monotonic() - began < 5
            session.rollback()
        proxy.open()
        with database.write() as session:
            assert session.scalar(text("SELECT 3")) == 3
        database.close()


@pytest.mark.parametrize("engine", ["write", "read"])
def test_freeze_inside_a_transaction_is_an_outage(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setitem(
        postgresql._TIMEOUT_PARAMETERS, "idle_in_transaction_session_timeout", "50ms"
    )
    database = open_database(settings)
    with getattr(database, engine)() as session:
        session.scalar(text("SELECT 1"))
        time.sleep(0.5)
        with pytest.raises(OUTAGE_ERRORS, match="idle-in-transaction"):
            session.scalar(text("SELECT 2"))
        session.rollback()
    with getattr(database, engine)() as session:
        assert session.scalar(text("SELECT 3")) == 3
    database.close()


def test_read_only_server_is_an_outage_until_failover(
    settings: Settings, postgres: PostgresServer
) -> None:
    name = settings.sqlalchemy_url.rpartition("/")[2]
    rename = text("UPDATE api_keys SET name = 'kept'")
    postgres.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    database = open_database(settings)
    with pytest.raises(OUTAGE_ERRORS, match="read-only") as caught, database.write() as session:
        session.execute(rename)
    assert isinstance(to_app_error(caught.value), DatabaseUnavailable)
    postgres.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    with database.write() as session:  # on a new connection: the old one is to the old server
        session.execute(rename)
    database.close()


def test_write_on_a_read_connection_is_not_an_outage(database: Database) -> None:
    with database.read() as session, pytest.raises(InternalError, match="read-only") as caught:
        session.execute(text("DELETE FROM api_keys"))
    assert to_app_error(caught.value) is None


def test_lock_wait_has_a_timeout(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgresql._TIMEOUT_PARAMETERS, "lock_timeout", "100ms")
    impatient = open_database(settings)
    rename = text("UPDATE api_keys SET name = 'mine'")
    with database.write() as holder, impatient.write() as other:
        holder.execute(rename)
        with pytest.raises(OperationalError, match="lock timeout"):
            other.execute(rename)
    impatient.close()
