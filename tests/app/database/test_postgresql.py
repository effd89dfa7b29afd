"""What PostgreSQL needs to lose nothing, and to hold nobody for ever."""

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InternalError, OperationalError
from sqlalchemy.orm import Session

from app.database import migrations, postgresql
from app.database.causes import cause
from app.database.engines import Database, open_database
from app.database.errors import OUTAGE, DatabaseUnavailable, DatabaseUnreachable
from app.settings import Settings
from tests.proxy import Proxy
from tests.servers import HOST, PASSWORD, PostgresServer, free_port


@pytest.fixture
def database_kind() -> str:
    return "postgresql"


@pytest.fixture
def own() -> Iterator[PostgresServer]:
    """A server that the test may stop."""
    server = PostgresServer()
    try:
        yield server
    finally:
        server.remove()


def shown(session: Session, name: str) -> object:
    return session.scalar(text(f"SHOW {name}"))


def test_sessions_are_durable_and_bounded(database: Database) -> None:
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


def test_defaults_of_the_database_do_not_make_commits_forgetful(
    settings: Settings, postgres: PostgresServer
) -> None:
    name = settings.url.rpartition("/")[2]
    postgres.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    database = open_database(settings)
    with database.write() as session:
        assert shown(session, "synchronous_commit") == "on"
    database.close()


def test_options_in_the_address_count_as_well(settings: Settings) -> None:
    url = f"{settings.url}?options=-c%20work_mem=9MB&application_name=mine"
    database = open_database(settings.model_copy(update={"database_url": url}))
    with database.write() as session:
        assert shown(session, "work_mem") == "9MB"
        assert shown(session, "application_name") == "mine"
        assert shown(session, "synchronous_commit") == "on"
    database.close()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_each_name_of_postgresql_is_understood(settings: Settings, scheme: str) -> None:
    url = f"{scheme}:{settings.url.partition(':')[2]}"
    database = open_database(settings.model_copy(update={"database_url": url}))
    migrations.check(database)
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
def test_a_database_that_cannot_be_reached_is_named_without_its_password(
    postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    wrong: dict[str, str],
    reason: str,
) -> None:
    monkeypatch.setattr(postgresql, "START_SECONDS", 0.3)
    host, database = wrong.get("host", HOST), wrong.get("database", "postgres")
    password = wrong.get("password", PASSWORD)
    port = free_port() if "port" in wrong else postgres.port
    url = f"postgresql://loraworks:{password}@{host}:{port}/{database}"
    with pytest.raises(DatabaseUnreachable, match=reason) as caught:
        open_database(Settings(database_url=url))
    assert f"{database!r} on {host}:{port}" in str(caught.value)
    assert password not in str(caught.value)


def test_a_server_that_starts_together_with_us_is_waited_for(own: PostgresServer) -> None:
    starting = threading.Timer(0.5, own.start)
    starting.start()
    database = open_database(Settings(database_url=own.url()))
    starting.join()
    with database.read() as session:
        assert session.scalar(text("SELECT 1")) == 1
    database.close()


def test_connections_come_back_after_a_crash_and_nothing_is_lost(own: PostgresServer) -> None:
    own.start()
    database = open_database(Settings(database_url=own.new_database()))
    rename = text("UPDATE api_keys SET name = 'kept'")
    with database.write() as session:
        session.execute(rename)
        session.commit()
    with database.read() as session:
        session.scalar(text("SELECT 1"))
    own.kill()
    with pytest.raises(DatabaseUnavailable):
        migrations.check(database)
    own.start()
    with database.read() as session:
        assert session.scalar(text("SELECT name FROM api_keys")) == "kept"
    with database.write() as session:
        session.execute(rename)
        session.commit()
    database.close()


def test_a_server_that_goes_silent_holds_nobody_for_ever(
    settings: Settings, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "ANSWER_SECONDS", 0.5)
    with Proxy(postgres.port) as proxy:
        url = settings.url.replace(f":{postgres.port}/", f":{proxy.port}/")
        database = open_database(settings.model_copy(update={"database_url": url}))
        with database.write() as session:
            session.scalar(text("SELECT 1"))
            proxy.blackhole()
            began = time.monotonic()
            with pytest.raises(OperationalError):
                session.scalar(text("SELECT 2"))
            assert time.monotonic() - began < 5
        proxy.open()
        with database.write() as session:
            assert session.scalar(text("SELECT 3")) == 3
        database.close()


@pytest.mark.parametrize("engine", ["write", "read"])
def test_a_freeze_inside_a_transaction_is_an_outage(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setitem(postgresql._LIMITED, "idle_in_transaction_session_timeout", "50ms")
    database = open_database(settings)
    with getattr(database, engine)() as session:
        session.scalar(text("SELECT 1"))
        time.sleep(0.5)
        with pytest.raises(OUTAGE, match="idle-in-transaction"):
            session.scalar(text("SELECT 2"))
    with getattr(database, engine)() as session:
        assert session.scalar(text("SELECT 3")) == 3
    database.close()


def test_a_server_that_takes_no_writes_is_away_until_another_takes_over(
    settings: Settings, postgres: PostgresServer
) -> None:
    name = settings.url.rpartition("/")[2]
    rename = text("UPDATE api_keys SET name = 'kept'")
    postgres.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    database = open_database(settings)
    with database.write() as session, pytest.raises(OUTAGE, match="read-only") as caught:
        session.execute(rename)
    assert isinstance(cause(caught.value), DatabaseUnavailable)
    postgres.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    with database.write() as session:  # on a new connection: the old one leads to the old server
        session.execute(rename)
        session.commit()
    database.close()


def test_a_reader_that_writes_is_a_mistake_of_ours(database: Database) -> None:
    with database.read() as session, pytest.raises(InternalError, match="read-only") as caught:
        session.execute(text("DELETE FROM api_keys"))
    assert cause(caught.value) is None


def test_a_lock_is_not_waited_for_without_end(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgresql._LIMITED, "lock_timeout", "100ms")
    impatient = open_database(settings)
    rename = text("UPDATE api_keys SET name = 'mine'")
    with database.write() as holder, impatient.write() as other:
        holder.execute(rename)
        with pytest.raises(OperationalError, match="lock timeout"):
            other.execute(rename)
    impatient.close()
