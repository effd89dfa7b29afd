"""`loraworks migrate` on both databases, alone and concurrently."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url
from typer.testing import Result

from app.database import postgresql
from app.database.migrations import MIGRATION_LOCK_ID
from tests.app.cli.conftest import Run, answer
from tests.servers import PostgresServer, free_port
from tests.waiting import wait_until

VERSIONS = Path(__file__).parents[3] / "migrations/versions"
HEAD = max(path.name[:4] for path in VERSIONS.glob("0*.py"))


@pytest.fixture
def url(postgres: PostgresServer) -> Iterator[str]:
    """A database without any table."""
    made = postgres.empty_database()
    yield made
    postgres.drop(made)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect without a timeout, so that only the command waits."""
    monkeypatch.setattr(postgresql, "STARTUP_TIMEOUT_SECONDS", 0.0)


def refused(result: Result, code: str) -> None:
    assert result.exit_code == 4
    assert f"({code})" in result.stderr
    assert "Traceback" not in result.output


def test_migrate_prints_both_revisions(run: Run, url: str) -> None:
    refused(run("migrate", "--check", LORAWORKS_DATABASE_URL=url), "schema_older")
    shown = make_url(url)
    where = f"{shown.get_backend_name()}:"
    first = run("migrate", LORAWORKS_DATABASE_URL=url)
    assert first.stdout.startswith(f"Upgraded the schema of {where}")
    assert first.stdout.endswith(f"/{shown.database} from none to {HEAD}\n")
    assert f":{shown.password}@" not in first.stdout
    again = run("migrate", LORAWORKS_DATABASE_URL=url)
    assert again.stdout.endswith(f"/{shown.database} is up to date: {HEAD}\n")
    moved = answer(run("migrate", "--check", "--json", LORAWORKS_DATABASE_URL=url))
    assert moved == {"before": HEAD, "after": HEAD}


def test_an_embedded_database_is_migrated_as_well(run: Run, tmp_path: Path) -> None:
    moved = answer(run("migrate", "--json", "--data-dir", f"{tmp_path}/data"))
    assert moved == {"before": None, "after": HEAD}


def test_unknown_settings_are_logged(run: Run, tmp_path: Path) -> None:
    unknown = {"LORAWORKS_DATABASE_UR": "postgresql://db/x", "LORAWORKS_ZZZ": "", "OTHER_URL": ""}
    folder = ("--data-dir", f"{tmp_path}/data")
    result = run("migrate", "--check", *folder, **unknown, LORAWORKS_CACHE="/")
    logged = [json.loads(line) for line in result.stderr.splitlines() if line.startswith("{")]
    assert [(line["variable"], line["similar"]) for line in logged] == [
        ("LORAWORKS_DATABASE_UR", ["LORAWORKS_DATABASE_URL"]),
        ("LORAWORKS_ZZZ", []),
    ]


def test_a_check_changes_nothing(run: Run, url: str) -> None:
    for _ in range(2):
        refused(run("migrate", "--check", LORAWORKS_DATABASE_URL=url), "schema_older")


def test_newer_schema_is_unchanged(run: Run, url: str) -> None:
    assert run("migrate", LORAWORKS_DATABASE_URL=url).exit_code == 0
    with psycopg.connect(url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ff99'")
    refused(run("migrate", LORAWORKS_DATABASE_URL=url), "schema_newer")
    refused(run("migrate", "--check", LORAWORKS_DATABASE_URL=url), "schema_newer")


@pytest.fixture
def stranger(postgres: PostgresServer, url: str) -> Iterator[str]:
    """Return the URL of the same database for a role without privileges."""
    postgres.execute("CREATE ROLE stranger LOGIN PASSWORD 'not-for-logs'")
    yield url.replace("//loraworks:", "//stranger:")
    postgres.execute("DROP ROLE stranger")


@pytest.mark.parametrize("command", [["migrate"], ["up", "--port", "0"]])
def test_missing_database_permission_is_named(
    run: Run, stranger: str, tmp_path: Path, command: list[str]
) -> None:
    result = run(*command, "--data-dir", str(tmp_path), LORAWORKS_DATABASE_URL=stranger)
    refused(result, "database_refused")
    assert "permission denied for schema public" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["migrate", "--check"], ["api", "--port", "0"]])
def test_missing_read_permission_is_named(
    run: Run, url: str, stranger: str, tmp_path: Path, command: list[str]
) -> None:
    assert run("migrate", LORAWORKS_DATABASE_URL=url).exit_code == 0
    result = run(*command, "--data-dir", str(tmp_path), LORAWORKS_DATABASE_URL=stranger)
    refused(result, "database_refused")
    assert "permission denied for table alembic_version" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.slow  # tests/contracts/test_migrations.py
def test_concurrent_migrations_wait_for_each_other(url: str) -> None:
    command = [sys.executable, "-m", "app.cli.main", "migrate", "--json"]
    waiting = """
        SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database
        WHERE datname = current_database() AND locktype = 'advisory' AND NOT granted
    """
    with psycopg.connect(url) as turn, psycopg.connect(url, autocommit=True) as look:
        turn.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK_ID])
        started = [
            subprocess.Popen(
                command, stdout=subprocess.PIPE, env={"LORAWORKS_DATABASE_URL": url}, text=True
            )
            for _ in range(2)
        ]
        wait_until(lambda: look.execute(waiting).fetchone() == (2,), what="a queue of two")
    moves = [json.loads(process.communicate(timeout=60)[0]) for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert {move["after"] for move in moves} == {HEAD}
    assert sorted(move["before"] or "" for move in moves) == ["", HEAD]


@pytest.mark.slow  # the small form is in tests/app/database/test_postgresql.py
def test_waits_for_a_starting_database(
    run: Run, url: str, postgres: PostgresServer, hasty: None
) -> None:
    postgres.stop()
    late = threading.Timer(1.5, postgres.start)
    late.start()
    result = run("migrate", LORAWORKS_DATABASE_URL=url)
    late.join()
    assert result.exit_code == 0, result.output
    assert result.stderr.count("Retrying for up to") == 1


def test_waiting_has_a_limit(run: Run, hasty: None) -> None:
    nowhere = f"postgresql://loraworks:not-for-logs@127.0.0.1:{free_port()}/loraworks"
    result = run("migrate", "--wait", "0.1", LORAWORKS_DATABASE_URL=nowhere)
    refused(result, "database_unreachable")
    assert "not-for-logs" not in result.output
