"""The restore of an SQLite database, after a crash that left a write-ahead log."""

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pysqlite3.dbapi2 as sqlite

from tests.docs.blocks import Block, blocks


def test_restore_ignores_the_write_ahead_log_of_the_old_database(tmp_path: Path) -> None:
    (tmp_path / "data" / "artifacts").mkdir(parents=True)
    file = tmp_path / "data" / "loraworks.sqlite3"
    with closing(sqlite.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE texts (text)")
        connection.executemany("INSERT INTO texts VALUES (?)", [("x" * 500,)] * 300)
        _run(_block(".backup("), tmp_path)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("DELETE FROM texts WHERE rowid > 100")
        shutil.copytree(tmp_path / "data", tmp_path / "crashed")  # before it is closed
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "crashed").rename(tmp_path / "data")

    _run(_block("rm -f data/loraworks.sqlite3-wal"), tmp_path)
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    with closing(sqlite.connect(file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("SELECT count(*) FROM texts").fetchone() == (300,)


def _block(holding: str) -> Block:
    (found,) = (each for each in blocks("docs/how-to/operations.md") if holding in each.text)
    return found


def _run(block: Block, directory: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = ["/usr/bin/env", "bash", "-euo", "pipefail", "-c", block.text]
    subprocess.run(command, cwd=directory, env={"PATH": path}, check=True)
