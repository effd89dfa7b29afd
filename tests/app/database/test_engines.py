"""Reading and writing without data loss, on each database."""

from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError

from app.auth.tables import BrowserSession
from app.database.base import new_id
from app.database.engines import Database, call_after_commit, open_database
from app.database.errors import DatabaseUrlInvalid, UnsupportedDatabase
from app.settings import Settings

NAME = text("SELECT name FROM api_keys")
RENAME = text("UPDATE api_keys SET name = :name")

on_all = pytest.mark.parametrize("database_kind", ["sqlite", "sqlite-truncate", "postgresql"])


@on_all
def test_write_commits_at_the_end_of_the_block_and_rolls_back_on_an_error(
    database: Database,
) -> None:
    with database.write() as session:
        session.execute(RENAME, {"name": "kept"})

    def fail_halfway() -> None:
        with database.write() as session:
            session.execute(RENAME, {"name": "lost"})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    with database.read() as session:
        assert session.scalar(NAME) == "kept"


@on_all
def test_after_commit_runs_once_the_rows_are_visible_and_the_connection_is_free(
    database: Database,
) -> None:
    seen: list[str | None] = []

    def record() -> None:
        with database.write() as session:
            seen.append(session.scalar(NAME))

    with database.write() as session:
        session.execute(RENAME, {"name": "kept"})
        call_after_commit(session, record)
        assert seen == []
    assert seen == ["kept"]


@on_all
def test_after_commit_does_not_run_after_a_rollback(database: Database) -> None:
    calls: list[str] = []

    def fail_to_commit() -> None:
        with database.write() as session:
            call_after_commit(session, lambda: calls.append("sent"))
            session.add(BrowserSession(key_id=new_id(), secret_hmac="0" * 64, expires_at=0))

    with pytest.raises(IntegrityError):
        fail_to_commit()
    assert calls == []


@on_all
def test_reader_cannot_write(database: Database) -> None:
    with database.read() as session, pytest.raises(DBAPIError, match=r"read-?only"):
        session.execute(text("DELETE FROM api_keys"))


@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])
def test_reader_sees_a_snapshot_and_does_not_block_the_writer(database: Database) -> None:
    with database.read() as reader:
        before = reader.scalar(NAME)
        with database.write() as writer:
            writer.execute(RENAME, {"name": "other"})
        assert reader.scalar(NAME) == before
    with database.read() as reader:
        assert reader.scalar(NAME) == "other"


@on_all
def test_foreign_keys_are_enforced(database: Database) -> None:
    nobody = "00000000-0000-0000-0000-00000000000a"
    orphan = (
        "INSERT INTO model_aliases (model_id, alias, version_id, moved_at) "  # noqa: S608
        f"VALUES ('{nobody}', 'production', '{nobody}', 0)"
    )
    with database.write() as session, pytest.raises(IntegrityError, match=r"(?i)foreign key"):
        session.execute(text(orphan))


@on_all
def test_database_error_does_not_repeat_the_values(database: Database) -> None:
    insert = text(
        "INSERT INTO api_keys (id, name) VALUES (:id, :name)"
    )  # required columns are missing
    values = {"id": "00000000-0000-0000-0000-00000000000a", "name": "a text of a caller"}
    with database.write() as session, pytest.raises(IntegrityError) as caught:
        session.execute(insert, values)
    assert "a text of a caller" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://somewhere/else", "postgresql+asyncpg://somewhere/else"])
def test_unsupported_database_is_rejected(tmp_path: Path, url: str) -> None:
    with pytest.raises(UnsupportedDatabase, match=url.partition(":")[0].replace("+", r"\+")):
        open_database(Settings(data_dir=tmp_path, database_url=url))


@pytest.mark.parametrize(
    "url",
    [
        "loraworks.sqlite3",
        "postgresql://someone:secret@somewhere:port/else",
        "postgresql://someone:half@secret@127.0.0.1:9/else",
        "postgresql://someone:secret@127.0.0.1/else?no_such_option=1",
        "sqlite:///loraworks.sqlite3?journal_mode=off",
    ],
)
def test_invalid_database_url_is_rejected_without_its_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(DatabaseUrlInvalid, match="LORAWORKS_DATABASE_URL") as caught:
        open_database(Settings(data_dir=tmp_path, database_url=url))
    assert "secret" not in str(caught.value)
