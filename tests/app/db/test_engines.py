"""Reading and writing SQLite without losing anything."""

from concurrent.futures import ThreadPoolExecutor

import pysqlite3.dbapi2 as sqlite
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from app.db.engines import Database, open_database, wal_is_safe
from app.db.errors import UnsupportedDatabase
from app.settings import Settings


def pragma(session: Session, name: str) -> object:
    return session.execute(text(f"PRAGMA {name}")).scalar()


def test_only_what_is_committed_stays(database: Database) -> None:
    rename = text("UPDATE api_keys SET name = :name")
    with database.write() as session:
        session.execute(rename, {"name": "kept"})
        session.commit()
    with database.write() as session:
        session.execute(rename, {"name": "lost"})

    def fail_halfway() -> None:
        with database.write() as session:
            session.execute(rename, {"name": "lost"})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    with database.read() as session:
        assert session.scalar(text("SELECT name FROM api_keys")) == "kept"


def test_a_reader_cannot_write(database: Database) -> None:
    with database.read() as session, pytest.raises(OperationalError, match="readonly"):
        session.execute(text("DELETE FROM api_keys"))


def test_a_reader_sees_one_moment_and_does_not_block_the_writer(database: Database) -> None:
    count = text("SELECT name FROM api_keys")
    with database.read() as reader:
        before = reader.scalar(count)
        with database.write() as writer:
            writer.execute(text("UPDATE api_keys SET name = 'other'"))
            writer.commit()
        assert reader.scalar(count) == before
    with database.read() as reader:
        assert reader.scalar(count) == "other"


def test_read_then_write_loses_no_update_between_threads_and_processes(
    database: Database, settings: Settings
) -> None:
    other = open_database(settings)  # connections of its own, as another process has

    def count_up(number: int) -> None:
        with (database if number % 2 else other).write() as session:
            seen = session.scalar(text("SELECT created_at FROM api_keys"))
            session.execute(text("UPDATE api_keys SET created_at = :n"), {"n": (seen or 0) + 1})
            session.commit()

    with database.write() as session:
        session.execute(text("UPDATE api_keys SET created_at = 0"))
        session.commit()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(count_up, range(80)))
    other.close()
    with database.read() as session:
        assert session.scalar(text("SELECT created_at FROM api_keys")) == 80


def test_connections_are_set_up_to_be_safe(database: Database) -> None:
    with database.write() as session:
        assert pragma(session, "foreign_keys") == 1
        assert pragma(session, "synchronous") == 2
        assert pragma(session, "journal_mode") == "wal"
    with database.read() as session:
        assert pragma(session, "foreign_keys") == 1
        assert pragma(session, "query_only") == 1


def test_foreign_keys_hold(database: Database) -> None:
    orphan = "INSERT INTO model_aliases VALUES ('00', 'production', '00', 0)"
    with database.write() as session, pytest.raises(IntegrityError, match="FOREIGN KEY"):
        session.execute(text(orphan))


def test_an_error_does_not_repeat_what_was_to_be_written(database: Database) -> None:
    insert = text("INSERT INTO api_keys (id, name) VALUES (:id, :name)")  # other columns lack
    with database.write() as session, pytest.raises(IntegrityError) as caught:
        session.execute(insert, {"id": "00", "name": "a text of a caller"})
    assert "a text of a caller" not in str(caught.value)


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
def test_wal_is_used_only_with_the_fix(version: tuple[int, int, int], safe: bool) -> None:
    assert wal_is_safe(version) is safe


def test_the_bundled_sqlite_has_the_fix() -> None:
    assert wal_is_safe(sqlite.sqlite_version_info)


def test_another_kind_of_database_is_refused(settings: Settings) -> None:
    wrong = Settings(data_dir=settings.data_dir, database_url="mysql://somewhere/else")
    with pytest.raises(UnsupportedDatabase, match="mysql"):
        open_database(wrong)
