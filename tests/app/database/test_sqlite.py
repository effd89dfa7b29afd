"""SQLite: durability and locking."""

from concurrent.futures import ThreadPoolExecutor

import pysqlite3.dbapi2 as sqlite
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.database.engines import Database, open_database
from app.database.errors import NotEnoughMemoryToRebuild
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


ROWS = 3000


def fill_and_empty(database: Database) -> None:
    """Leave a file of which most pages are free."""
    with database.write() as session:
        session.execute(text("CREATE TABLE filler (number INTEGER PRIMARY KEY, content TEXT)"))
        rows = [{"number": number, "content": "x" * 1000} for number in range(ROWS)]
        session.execute(text("INSERT INTO filler VALUES (:number, :content)"), rows)
    with database.write() as session:
        session.execute(text("DELETE FROM filler WHERE number % 10 > 0"))
        session.execute(text("DELETE FROM filler WHERE number < 1000"))


def contents(database: Database) -> int:
    with database.read() as session:
        assert session.scalar(text("PRAGMA integrity_check")) == "ok"
        count: int = session.execute(text("SELECT count(*) FROM filler")).scalar_one()
        return count


@pytest.mark.parametrize("database_kind", ["sqlite", "sqlite-truncate"])
def test_free_space_is_given_back(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.sqlite.VACUUM_PAGES", 50)  # in several transactions
    fill_and_empty(database)
    free = database.incremental_vacuum(dry_run=True)
    before = settings.default_sqlite_path.stat().st_size
    assert free > before / 3
    other = open_database(settings)
    assert other.incremental_vacuum() == free
    other.close()
    assert settings.default_sqlite_path.stat().st_size <= before - free
    assert database.incremental_vacuum(dry_run=True) == 0
    assert contents(database) == ROWS * 2 / 30
    assert database.ensure_auto_vacuum() == 0


def test_others_write_while_space_is_given_back(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.sqlite.VACUUM_PAGES", 20)
    fill_and_empty(database)
    other = open_database(settings)
    with ThreadPoolExecutor(1) as pool:
        giving = pool.submit(other.incremental_vacuum)
        writes = 0
        while not giving.done():
            with database.write() as session:
                session.execute(text("UPDATE api_keys SET created_at = created_at + 1"))
            writes += 1
    assert giving.result() > 0
    assert writes > 1
    other.close()


@pytest.fixture
def old_file(settings: Settings) -> Settings:
    """A database of a version that did not let the file become shorter."""
    settings.default_sqlite_path.unlink()
    connection = sqlite.connect(settings.default_sqlite_path)
    connection.execute("CREATE TABLE api_keys (created_at FLOAT)")
    connection.commit()
    connection.close()
    return settings


def test_old_file_is_rebuilt_once(old_file: Settings) -> None:
    database = open_database(old_file)
    fill_and_empty(database)
    before = old_file.default_sqlite_path.stat().st_size
    assert database.incremental_vacuum() == 0
    freed = database.ensure_auto_vacuum()
    assert freed > before / 3
    assert (
        old_file.default_sqlite_path.stat().st_size <= before - freed + 16_384
    )  # the map of the pages
    assert database.ensure_auto_vacuum() == 0
    with database.write() as session:
        session.execute(text("DELETE FROM filler"))
    assert database.incremental_vacuum() > 0
    assert contents(database) == 0
    database.close()


def test_rebuild_without_enough_memory_changes_nothing(
    old_file: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.database.sqlite._available_memory", lambda: 1)
    database = open_database(old_file)
    fill_and_empty(database)
    with pytest.raises(NotEnoughMemoryToRebuild, match="0 MB are available"):
        database.ensure_auto_vacuum()
    assert contents(database) == ROWS * 2 / 30
    assert database.incremental_vacuum() == 0
    database.close()
