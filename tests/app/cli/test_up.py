"""`loraworks up` as real processes."""

import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.cli import serve
from app.cli.client import Client
from app.cli.errors import RequestRejected
from app.cli.up import build_ready_callback
from app.settings import Settings
from tests.app.cli.conftest import Run

pytestmark = pytest.mark.e2e

Start = Callable[..., tuple[subprocess.Popen[str], dict[str, Any]]]
PATIENCE = 40.0
NO_TRAINING = {"LORAWORKS_FORK_SERVER": "off"}  # which would import torch


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `loraworks up` on a free port; return the process and its announcement."""
    with ExitStack() as running:

        def begin(*options: str, **environment: str) -> tuple[subprocess.Popen[str], Any]:
            process = subprocess.Popen(
                [sys.executable, "-m", "app.cli.main", "up", "--port", "0", "--json", *options,
                 "--data-dir", str(tmp_path / "data")],
                stdout=subprocess.PIPE, text=True, env={**os.environ, **NO_TRAINING, **environment},
            )  # fmt: skip
            running.enter_context(process)
            running.callback(process.kill)
            assert process.stdout is not None
            return process, json.loads(process.stdout.readline())

        yield begin


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended meanwhile
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def stop(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(timeout=PATIENCE)


def test_up_announces_restarts_worker_and_stops_cleanly(start: Start) -> None:
    """Stops at SIGINT; other tests use SIGTERM."""
    process, service = start()
    assert httpx2.get(f"{service['url']}/readyz").status_code == 200
    assert httpx2.get(service["docs"]).status_code == 200
    assert service["admin_key_file"] is None
    assert service["retention"]["keep_checkpoint_days"] == 7
    [worker] = children(process.pid)
    os.kill(worker, signal.SIGKILL)
    until(lambda: any(child != worker for child in children(process.pid)))
    [other] = children(process.pid)
    assert stop(process, signal.SIGINT) == 0
    assert not alive(other)
    assert process.stdout is not None
    assert process.stdout.read() == ""


# That the second start creates none: tests/app/auth/test_service.py
@pytest.mark.parametrize("twice", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_admin_key_is_created_once_and_private(start: Start, tmp_path: Path, twice: bool) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)  # made by an operator, open to all
    first, service = start(LORAWORKS_AUTH="on")
    with Client(service["url"]) as client, pytest.raises(RequestRejected, match="needs an API key"):
        client.list_jobs(1)
    file = Path(service["admin_key_file"])
    assert (file, stat.S_IMODE(file.stat().st_mode)) == (data / "admin-key", 0o600)
    key = file.read_text().strip()
    assert key not in json.dumps(service)
    with Client(service["url"], key=key) as client:
        assert client.list_jobs(1) == []
        (tmp_path / "a.csv").write_text("text,label\ngood,1\nbad,0\n")
        client.upload_dataset(tmp_path / "a.csv")
    written = {path.relative_to(data): path for path in data.rglob("*")}
    names = {path.name for path in written}
    assert {"loraworks.sqlite3", "loraworks.sqlite3-wal", "pepper", "artifacts"} <= names
    assert any(path.suffix == ".csv" for path in written)
    assert {name for name, path in written.items() if path.stat().st_mode & 0o077} == set()
    assert stat.S_IMODE(data.stat().st_mode) == 0o755
    assert stop(first) == 0
    if not twice:
        return

    second, again = start("--no-worker", LORAWORKS_AUTH="on")
    assert children(second.pid) == []
    assert again["admin_key_file"] is None
    with Client(again["url"], key) as client:
        job = client.create_job({"method": {"type": "baseline"}})
        next(client.stream_job(job.id))  # a followed stream does not hold up the stop
        assert stop(second, signal.SIGINT) == 0


@pytest.mark.slow  # the next test is the small form
def test_terminal_shows_the_admin_key_without_storing_it(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli.main", "up", "--no-worker", "--port", "0",
         "--data-dir", str(tmp_path / "data")],
        stdout=theirs, stderr=subprocess.DEVNULL, env={**os.environ, "LORAWORKS_AUTH": "on"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while b"Ready." not in shown:
        shown += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=PATIENCE) == 0
    os.close(ours)
    assert re.search(rb"lw_[0-9a-f]{32}_", shown)
    assert not (tmp_path / "data" / "admin-key").exists()


def test_terminal_shows_the_admin_key_before_the_service_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start creates none, so the key would be lost if this one failed."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    build_ready_callback(Settings(), admin_key="lw_secret")
    assert "lw_secret" in capsys.readouterr().out


def test_slow_start_is_mentioned_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class StartingService(nullcontext["StartingService"]):
        polls = 0

        def __enter__(self) -> "StartingService":
            return self

        def is_ready(self) -> bool:
            time.sleep(0.05)  # a service that hangs answers late
            self.polls += 1
            return self.polls == 4

    monkeypatch.setattr(serve, "Client", lambda _url: StartingService())
    monkeypatch.setattr(serve, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(serve, "SLOW_START_SECONDS", 0.1)
    serve._announce_when_ready("http://service", lambda: None, threading.Event())
    assert capsys.readouterr().err.count("not ready yet") == 1


def test_sigterm_reports_not_ready_and_finishes_requests(start: Start) -> None:
    process, service = start("--no-worker")
    requested = threading.Event()

    def parts() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        yield b"text,label\n"
        process.terminate()
        requested.set()
        until(lambda: httpx2.get(f"{service['url']}/readyz").status_code == 503)
        assert httpx2.get(f"{service['url']}/livez").status_code == 200
        until(lambda: not listens(service["url"]))
        yield b"".join(b"text %d,%s\n" % (n, b"good bad".split()[n % 2]) for n in range(40))
        yield b"\r\n--x--\r\n"

    with Client(service["url"]) as client:
        job = client.create_job({"method": {"type": "baseline"}})
        stream = client.stream_job(job.id)
        next(stream)
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = httpx2.post(
            f"{service['url']}/v1/datasets", content=parts(), headers=headers, timeout=PATIENCE
        )
        assert "end" not in [message.event for message in stream]  # it ended without breaking
    assert (answer.status_code, answer.json()["rows"]) == (201, 40)
    assert requested.is_set()
    assert process.wait(timeout=PATIENCE) == 0


def listens(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/livez").is_success
    except httpx2.TransportError:  # refused, or taken up and then hung up on
        return False


def test_port_in_use_is_reported_before_anything_is_created(run: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("up", "--port", port, "--data-dir", str(tmp_path / "data"))
    assert result.exit_code == 2
    assert f"port {port}: Address already in use" in result.stderr
    assert "(port_in_use)" in result.stderr
    assert not (tmp_path / "data").exists()


def test_address_of_another_machine_is_no_used_port(run: Run, tmp_path: Path) -> None:
    """192.0.2.1 is an address for documentation (RFC 5737)."""
    result = run(
        "up", "--port", "0", "--data-dir", str(tmp_path / "data"), LORAWORKS_HOST="192.0.2.1",
        LORAWORKS_AUTH="on",
    )  # fmt: skip
    assert (result.exit_code, "(cannot_listen)" in result.stderr) == (2, True), result.stderr
    assert "stop the program" not in result.stderr


@pytest.mark.slow  # the test of an already used port is similar
def test_second_up_is_rejected_until_the_first_is_killed(
    start: Start, run: Run, tmp_path: Path
) -> None:
    first, service = start()
    for more in ([], ["--no-worker"]):
        result = run("up", "--port", "0", "--data-dir", str(tmp_path / "data"), *more)
        assert result.exit_code == 2
        assert f", at {service['url']};" in result.stderr
        assert "(already_up)" in result.stderr
    [worker] = children(first.pid)
    first.kill()
    first.wait()
    until(lambda: not alive(worker))
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(service["url"])
    second, _ = start()
    assert stop(second) == 0


def test_public_address_needs_authentication(run: Run) -> None:
    result = run("up", "--host", "192.0.2.1", "--port", "0")
    assert result.exit_code == 2
    assert "LORAWORKS_AUTH=on" in result.stderr
    assert result.stderr.count("\n") == 1


def test_limits_of_retention_are_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAWORKS_KEEP_ARTIFACT_DAYS", "12.5")
    monkeypatch.setenv("LORAWORKS_KEEP_JOB_DAYS", "forever")
    build_ready_callback(Settings())()
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("kept")]
    for limit in ("checkpoints 7 days", "unregistered models 12.5 days", "other jobs forever"):
        assert limit in line
