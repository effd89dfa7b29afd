"""`loraworks worker`: starts the worker, and checks whether one on this host is healthy."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.database.base import now
from app.database.engines import Database
from app.queue.tables import Worker
from app.settings import Settings
from tests.app.cli.conftest import Run
from tests.servers import ValkeyServer
from tests.waiting import wait_until

pytestmark = pytest.mark.e2e

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Start `loraworks worker` on the data directory of the test."""
    with ExitStack() as running:

        def begin(**environment: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli.main", "worker"],
                stdin=subprocess.DEVNULL,
                env={
                    "LORAWORKS_DATA_DIR": str(settings.data_dir),
                    "LORAWORKS_FORK_SERVER": "off",  # nothing is trained
                    **environment,
                },
            )
            running.enter_context(process)
            running.callback(process.kill)
            return process

        yield begin


def program(process: subprocess.Popen[bytes]) -> list[str]:
    return Path(f"/proc/{process.pid}/cmdline").read_text().split("\0")


def well(run: Run, settings: Settings) -> bool:
    return run("worker", "--check", "--data-dir", str(settings.data_dir)).exit_code == 0


@pytest.mark.slow  # the test below; `loraworks up` starts it in test_up.py
def test_without_broker_the_polling_worker_starts(
    start: Start, run: Run, settings: Settings
) -> None:
    assert not well(run, settings)
    process = start()
    wait_until(lambda: well(run, settings), seconds=60, pause=0.2)
    assert program(process)[1:4] == ["-P", "-m", "worker"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


STARTED = """
import json, os
os.execv = lambda program, words: print(json.dumps(words))
from app.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("broker", "words"),
    [
        ({}, ["-P", "-m", "worker"]),
        (
            {"LORAWORKS_BROKER_URL": "redis://127.0.0.1:1/0"},
            ["-P", "-m", "celery", "-A", "worker.celery_app", "worker"],
        ),
    ],
    ids=["without", "with"],
)
def test_broker_decides_which_worker_starts(
    settings: Settings, broker: dict[str, str], words: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STARTED, "worker", "--data-dir", str(settings.data_dir)],
        env=broker, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [sys.executable, *words]


@pytest.mark.slow  # the test above; a worker of Celery that runs: tests/worker/test_celery.py
def test_with_broker_the_celery_worker_starts(
    start: Start, run: Run, settings: Settings, valkey: ValkeyServer
) -> None:
    process = start(LORAWORKS_BROKER_URL=valkey.url())
    wait_until(lambda: well(run, settings), seconds=60, pause=1)
    assert program(process)[1:7] == ["-P", "-m", "celery", "-A", "worker.celery_app", "worker"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == 0


def test_silent_worker_is_unhealthy(run: Run, settings: Settings, database: Database) -> None:
    def seen(host: str, seconds: float) -> None:
        with database.write() as session:
            session.add(
                Worker(
                    id=host, host=host, boot_id="boot", pid=1, pid_start=1, devices=[],
                    seen_at=now() - seconds, draining=False,
                )
            )  # fmt: skip

    def check(**changes: str) -> tuple[int, str]:
        result = run("worker", "--check", "--data-dir", str(settings.data_dir), **changes)
        return result.exit_code, result.stderr

    seen("another-machine", 1)
    assert check() == (4, "error: no worker runs on this host (no_worker)\n")
    seen(socket.gethostname(), 100)
    code, output = check()
    assert (code, "has reported in for 10" in output) == (4, True), output
    rarely = {"LORAWORKS_RECONCILE_SECONDS": "60", "LORAWORKS_LEASE_SECONDS": "120"}
    assert check(**rarely) == (0, "")
    with database.write() as session:
        session.get_one(Worker, socket.gethostname()).seen_at = now()
    assert check() == (0, "")


def test_invalid_setting_is_reported_before_start(run: Run) -> None:
    result = run("worker", LORAWORKS_DEVICES="tpu")
    assert result.exit_code == 2
    assert "LORAWORKS_DEVICES" in result.stderr
    assert result.stderr.count("\n") == 1
