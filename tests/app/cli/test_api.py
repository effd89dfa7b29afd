"""`loraworks api`: the API alone, on an up-to-date database."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from app.cli import serve
from app.database.engines import Database
from app.settings import Settings
from tests.app.cli.conftest import Run, answer
from tests.app.cli.test_errors import answering
from tests.servers import free_port
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

Start = Callable[..., tuple[subprocess.Popen[str], dict[str, Any]]]
PATIENCE = 60.0


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Start]:
    """Start `loraworks api` on a free port; return the process and its announcement."""
    with ExitStack() as running:
        log = running.enter_context((tmp_path / "log").open("w"))

        def begin(**environment: str) -> tuple[subprocess.Popen[str], Any]:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli.main", "api", "--port", "0", "--json",
                 "--data-dir", str(settings.data_dir)],
                stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **environment},
            )  # fmt: skip
            running.enter_context(process)
            running.callback(process.kill)
            assert process.stdout is not None
            return process, json.loads(process.stdout.readline())

        yield begin


@pytest.mark.parametrize(
    "numbers",
    [(signal.SIGTERM,), pytest.param((signal.SIGTERM, signal.SIGINT), marks=pytest.mark.slow)],
    ids=["once", "twice"],
)
def test_api_serves_without_worker_and_stops_cleanly(
    start: Start, run: Run, settings: Settings, tmp_path: Path, numbers: tuple[signal.Signals, ...]
) -> None:
    def check() -> int:
        return run("api", "--check", LORAWORKS_PORT=service["url"].rpartition(":")[2]).exit_code

    for number in numbers:
        process, service = start(LORAWORKS_AUTH="on")
        reminders = (tmp_path / "log").read_text().count("loraworks keys create NAME")
        assert reminders == 1  # none if there is a key
        assert Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text() == ""
        made = answer(run("keys", "create", "ada", "--json", "--data-dir", str(settings.data_dir)))
        headers = {"Authorization": f"Bearer {made['key']}"}
        assert httpx2.get(f"{service['url']}/v1/jobs", headers=headers).json()["data"] == []
        assert httpx2.get(f"{service['url']}/v1/jobs").status_code == 401
        assert check() == 0
        process.send_signal(number)
        wait_until(lambda: check() == 4, pause=0.1)
        assert process.wait(timeout=PATIENCE) == 0


def test_empty_database_is_rejected_and_unchanged(run: Run, tmp_path: Path) -> None:
    for _ in range(2):
        refused = run("api", "--port", "0", "--data-dir", str(tmp_path / "fresh"))
        assert refused.exit_code == 4
        assert refused.stderr.count("\n") == 1
        assert "`loraworks migrate`" in refused.stderr
        assert "(schema_older)" in refused.stderr


def test_newer_schema_is_rejected(run: Run, settings: Settings, database: Database) -> None:
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'ff99'"))
    refused = run("api", "--port", "0", "--data-dir", str(settings.data_dir))
    assert refused.exit_code == 4
    assert refused.stderr.count("\n") == 1
    assert "(schema_newer)" in refused.stderr


def test_missing_confinement_is_logged(
    run: Run, settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads uploads. With a worker, that one logs it."""
    logged: list[str] = []
    monkeypatch.setattr(serve, "log_missing_confinement", lambda: logged.append("once"))
    monkeypatch.setattr(serve, "export_address_and_data_dir", lambda _: None)
    monkeypatch.setattr(serve._Server, "run", lambda *_, **__: None)
    run("api", "--port", "0", "--data-dir", str(settings.data_dir))
    assert logged == ["once"]


@pytest.mark.parametrize("command", ["api", "up"])
@pytest.mark.parametrize(
    ("setting", "value", "code"),
    [
        ("STORE_URL", "ftp://x", "store_url_invalid"),
        ("BROKER_URL", "notaurl", "broker_url_invalid"),
        ("DATABASE_URL", "notaurl", "database_url_invalid"),
        ("DATABASE_URL", "mysql://x", "unsupported_database"),
    ],
)
def test_invalid_address_is_reported_on_one_line(
    run: Run, settings: Settings, command: str, setting: str, value: str, code: str
) -> None:
    wrong = {f"LORAWORKS_{setting}": value}
    refused = run(command, "--port", "0", "--data-dir", str(settings.data_dir), **wrong)
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"error: LORAWORKS_{setting} ")
    assert refused.stderr.endswith(f" ({code})\n")
    assert refused.stderr.count("\n") == 1


def test_data_directory_that_is_a_file_is_rejected(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = run("api", "--port", "0", "--data-dir", str(tmp_path / "file"))
    assert refused.exit_code == 2
    assert f"File exists: {tmp_path / 'file'}" in refused.stderr
    assert refused.stderr.endswith(" (data_folder_unusable)\n")
    assert refused.stderr.count("\n") == 1


def test_a_check_finds_no_service(run: Run) -> None:
    result = run("api", "--check", LORAWORKS_PORT=str(free_port()))
    assert result.exit_code == 4
    assert "(unreachable)" in result.stderr


def test_a_check_prints_json_on_request(run: Run) -> None:
    body = b'{"status": "ok", "parts": {"database": "ok"}}'
    with answering(200, body, "application/json") as url:
        ready = run("api", "--check", "--json", LORAWORKS_PORT=url.rpartition(":")[2])
    assert answer(ready) == {"status": "ok", "parts": {"database": "ok"}}
