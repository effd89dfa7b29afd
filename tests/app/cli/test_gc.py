"""`loraworks gc` lists what it removes and the disk usage."""

import os
import re
import time
from pathlib import Path

import pysqlite3.dbapi2 as sqlite
import pytest
import structlog
from sqlalchemy import text

from app.database.base import new_id
from app.resources import Resources
from app.settings import Settings
from tests.app.cli.conftest import Run, answer
from tests.app.storage.stores import made
from tests.servers import HOST, free_port

TWO_DAYS = 2 * 86_400
ROOT = Path(__file__).parents[3]


def orphan(resources: Resources, tmp_path: Path, age: float = TWO_DAYS) -> Path:
    """Create a stored directory without a row. `age` is in seconds."""
    ref = resources.store.move_directory_into_store(made(tmp_path / "out"), f"jobs/{new_id()}/a1")
    place = resources.store.local_directory(ref)
    then = time.time() - age
    for path in (place, *place.rglob("*")):
        os.utime(path, (then, then))
    return place


def test_dry_run_lists_what_is_removed_later(
    run: Run, resources: Resources, settings: Settings, tmp_path: Path
) -> None:
    place = orphan(resources, tmp_path)
    structlog.reset_defaults()  # as in a new process, where log lines would go to standard output
    here = {"LORAWORKS_DATA_DIR": str(settings.data_dir)}
    report = answer(run("gc", "--dry-run", "--json", **here))
    [removal] = report["removed"]
    assert (removal["kind"], removal["why"]) == ("model", "no database row refers to it")
    assert removal["key"] == place.relative_to(settings.artifacts_dir).as_posix()
    assert report["totals"] == [{"kind": "model", "count": 1, "bytes": removal["bytes"]}]
    assert report["freed_bytes"] == removal["bytes"] == report["disk_use"]["models"] > 0
    assert abs(removal["age_seconds"] - TWO_DAYS) < 600
    assert place.exists()

    shown = run("gc", "--dry-run", "--data-dir", str(settings.data_dir))
    assert removal["key"] in shown.stdout
    assert "Would free" in shown.stdout
    assert re.search(rf"^model +1 +{removal['bytes']:,}$", shown.stdout, re.M)

    done = answer(run("gc", "--json", **here))
    assert done["removed"][0]["key"] == removal["key"]
    assert done["disk_use"]["models"] == 0
    assert not place.exists()
    last = run("gc", **here)
    assert "Nothing to remove." in last.stdout
    assert "unreferenced" not in last.stdout
    assert "database" in last.stdout


def test_database_file_becomes_smaller(
    run: Run, resources: Resources, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it was made by a version whose files never did."""
    with resources.database.write() as session:
        session.execute(text("CREATE TABLE filler (content TEXT)"))
        rows = [{"content": "x" * 1000}] * 2000
        session.execute(text("INSERT INTO filler VALUES (:content)"), rows)
    with resources.database.write() as session:
        session.execute(text("DELETE FROM filler"))
    resources.close()
    old = sqlite.connect(settings.default_sqlite_path)
    old.execute("PRAGMA journal_mode=DELETE")
    old.execute("PRAGMA auto_vacuum=NONE")
    old.execute("CREATE TABLE more AS SELECT hex(zeroblob(500000)) AS content")
    old.execute("VACUUM")  # turns it off
    old.execute("DROP TABLE more")
    old.close()
    here = {"LORAWORKS_DATA_DIR": str(settings.data_dir)}
    before = settings.default_sqlite_path.stat().st_size
    planned = answer(run("gc", "--dry-run", "--json", **here))
    assert planned["database_bytes"] > 900_000
    assert settings.default_sqlite_path.stat().st_size == before

    monkeypatch.setattr("app.database.sqlite._available_memory", lambda: 0)
    refused = run("gc", "--json", **here)
    assert "(not_enough_memory_to_rebuild)" not in refused.stderr  # a warning, not a failure
    assert "rebuilt once" in refused.stderr
    assert answer(refused)["database_bytes"] == 0
    monkeypatch.undo()

    assert answer(run("gc", "--json", **here))["database_bytes"] == planned["database_bytes"]
    assert settings.default_sqlite_path.stat().st_size < before - 900_000
    assert "free space" not in run("gc", **here).stdout


def test_kept_young_files_are_reported(
    run: Run, resources: Resources, settings: Settings, tmp_path: Path
) -> None:
    orphan(resources, tmp_path, age=0)
    result = run("gc", "--data-dir", str(settings.data_dir))
    assert "Kept 1 unreferenced files that are younger than " in result.stdout


def test_after_restore_works_with_any_lease(
    run: Run, resources: Resources, settings: Settings, tmp_path: Path
) -> None:
    place = orphan(resources, tmp_path, age=0)
    page = (ROOT / "docs/how-to/operations.md").read_text(encoding="utf-8")
    restore = page.partition("**Restore**")[2].partition("## What to watch")[0]
    commands = re.findall(r"^(?:docker compose run --rm api|loraworks) (gc.*)$", restore, re.M)
    assert len(commands) == 2
    for command in commands:
        result = run(
            *command.split(),
            LORAWORKS_DATA_DIR=str(settings.data_dir),
            LORAWORKS_LEASE_SECONDS="43200",
            LORAWORKS_HEARTBEAT_SECONDS="3600",
        )
        assert result.exit_code == 0, result.stderr
        assert not place.exists()


def test_mistyped_data_directory_is_not_created(run: Run, tmp_path: Path) -> None:
    result = run("gc", "--data-dir", str(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert "(no_data)" in result.stderr
    assert not (tmp_path / "nowhere").exists()


def test_unreachable_store_is_reported(run: Run, settings: Settings) -> None:
    result = run(
        "gc",
        LORAWORKS_DATA_DIR=str(settings.data_dir),
        LORAWORKS_STORE_URL="s3://bucket",
        AWS_ENDPOINT_URL=f"http://{HOST}:{free_port()}",
        AWS_ACCESS_KEY_ID="somebody",
        AWS_SECRET_ACCESS_KEY="not-for-logs",
        AWS_ALLOW_HTTP="true",
        NO_PROXY=HOST,
    )
    assert result.exit_code == 4
    assert "(storage_unavailable)" in result.stderr
    assert "not-for-logs" not in result.stderr + result.stdout


def test_invalid_store_url_is_reported(run: Run, settings: Settings) -> None:
    result = run("gc", LORAWORKS_DATA_DIR=str(settings.data_dir), LORAWORKS_STORE_URL="gs://bucket")
    assert result.exit_code == 2
    assert "(store_url_invalid)" in result.stderr
