"""SQLite: durability and locking."""

from concurrent.futures import ThreadPoolExecutor

import pysqlite3.dbapi2 as sqlite
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.database.engines import Database, open_database
from app.database.sqlite import has_wal_fix
from app.settings import Settings


def pragma(session: Session, name: str) -> object:
    return session.execute(text(f"PRAGMA {name}")).scalar()


@pytest.mark.parametrize("database_kind", ["sqlite", "sqlite-truncate"])
def test_concurrent_read_then_write_loses_no_update(database: Database, settings: Settings) -> None:
    other = open_database(settings)  # separate connections, like those of another process

    def count_up(number: int) -> None:
        with (database if number % 2 else other).write() as session:
            seen = session.scalar(text("SELECT created_at FROM api_keys"))
            session.execute(text("UPDATE api_keys SET created_at = :n"), {"n": (seen or 0) + 1})

    with database.write() as session:
        session.execute(text("UPDATE api_keys SET created_at = 0"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count_up, range(80)))
    other.close()
    with database.read() as session:
        assert session.scalar(text("SELECT created_at FROM api_keys")) == 80


@pytest.mark.parametrize("database_kind", ["sqlite", "sqlite-truncate"])
def test_writer_waits_for_the_lock_up_to_a_timeout(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = open_database(settings)
    with database.write() as holder, ThreadPoolExecutor(1) as pool, other.write() as waiter:
        holder.execute(text("SELECT 1"))
        waiting = pool.submit(waiter.execute, text("SELECT 1"))
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.2)
        holder.commit()
        waiting.result(timeout=5)
        waiter.rollback()

        holder.execute(text("SELECT 1"))
        monkeypatch.setattr("app.database.sqlite.BUSY_TIMEOUT_SECONDS", 0.05)
        with pytest.raises(OperationalError, match="database is locked"):
            waiter.execute(text("SELECT 1"))
    other.close()


@pytest.mark.parametrize(
    ("database_kind", "journal"), [("sqlite", "wal"), ("sqlite-truncate", "truncate")]
)
def test_connections_have_safe_pragmas(database: Database, journal: str) -> None:
    with database.write() as session:
        assert pragma(session, "foreign_keys") == 1
        assert pragma(session, "synchronous") == 2
        assert pragma(session, "journal_mode") == journal
    with database.read() as session:
        assert pragma(session, "foreign_keys") == 1
        assert pragma(session, "query_only") == 1


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 53, 4), True),
        ((3, 51, 3), True),
        ((3, 51, 2), False),
        ((3, 50, 7), True),
        ((3, 50, 6), False),
        ((3, 46, 1), False),
        ((3, 44, 6), True),
        ((3, 44, 5), False),
        ((3, 7, 0), False),
    ],
)
def test_wal_requires_the_fix(version: tuple[int, int, int], safe: bool) -> None:
    assert has_wal_fix(version) is safe


def test_the_bundled_sqlite_has_the_fix() -> None:
    assert has_wal_fix(sqlite.sqlite_version_info)
