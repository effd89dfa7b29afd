"""The fork server: what its processes inherit, and what happens when it or the worker ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from app.queue.transitions import ProcessExitStatus
from lora_core import fork_server as library
from lora_core.child_protocol import READY_MESSAGE
from lora_core.events import Finished
from tests.lora_core.training.twins import product
from tests.tiny_base import make_base, make_reviews
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from tests.worker.test_spawn import SECRETS, read_all_events, running_server
from worker import fork_server_supervisor, spawn
from worker.fork_server_supervisor import ForkServerSupervisor
from worker.spawn import ChildProcess, ChildTask, ForkedProcess, child_environment
from worker.workdir import AttemptDir

pytestmark = pytest.mark.timeout(300)

WORKER = """
import sys, threading, time
from pathlib import Path
from tests.worker.scripted import scripted
from tests.worker.test_spawn import make_task, running_server
scripted("deaf", "ignore-term", "hang")
server = running_server()
child = server.spawn(make_task(Path(sys.argv[1])))
print(server.pid, child._process.pid, flush=True)
time.sleep(60)
"""


def make_task(
    directory: Path, device: str = "cpu", *, threads: int = 1, from_hub: bool = False
) -> ChildTask:
    directory.mkdir(exist_ok=True)
    return ChildTask(
        "train",
        AttemptDir(UUID(int=1), 1, directory),
        resume_from=None,
        checkpoint_seconds=60,
        threads=threads,
        device=device,
        from_hub=from_hub,
    )


Make = Callable[..., ForkServerSupervisor]


@pytest.fixture
def make() -> Iterator[Make]:
    """A running fork server, whose processes run a script of actions if there are any."""
    servers: list[ForkServerSupervisor] = []

    def start(*actions: str) -> ForkServerSupervisor:
        if actions:
            scripted(*actions)
        servers.append(running_server())
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def is_forked(child: ChildProcess) -> bool:
    return isinstance(child._process, ForkedProcess)


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.slow  # the small form closes the server
def test_process_outlives_the_server(make: Make, tmp_path: Path) -> None:
    server = make("steps:1", f"until:{tmp_path / 'end'}", "exit:7")
    child = server.spawn(make_task(tmp_path))
    wait_until(lambda: child.poll_events(0.1))
    assert Path(f"/proc/{child._process.pid}/comm").read_text() == "lora_core train\n"
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: server.pid not in (None, pid), what="another server")
    assert child.poll_events(0.1) is not None
    (tmp_path / "end").touch()
    read_all_events(child)
    assert child.kill_and_wait() == ProcessExitStatus(code=7)


def test_stopped_server_is_replaced_and_the_task_starts_anyway(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server_supervisor, "REPLY_SECONDS", 0.2)
    server = make("steps:1", "exit:0")
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    child = server.spawn(make_task(tmp_path / "one"))
    assert not is_forked(child)
    assert len(read_all_events(child)) == 1
    assert child.kill_and_wait() == ProcessExitStatus(code=0)
    wait_until(lambda: server.pid not in (None, pid), what="another server")
    assert gone(pid)
    child = server.spawn(make_task(tmp_path / "two"))
    assert is_forked(child)
    assert child.kill_and_wait().signal in (None, signal.SIGKILL)


def test_server_that_cannot_start_costs_no_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted("exit:0")
    monkeypatch.setattr(fork_server_supervisor, "FORK_SERVER_COMMAND", ("/bin/false",))
    server = ForkServerSupervisor()
    thread = threading.Thread(target=server.run_until_closed, daemon=True)
    thread.start()
    child = server.spawn(make_task(tmp_path))
    assert not is_forked(child)
    read_all_events(child)
    assert child.kill_and_wait() == ProcessExitStatus(code=0)
    server.close()
    thread.join(10)
    assert not thread.is_alive()


def test_server_that_cannot_start_is_started_ever_less_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, pauses = ForkServerSupervisor(), []
    become_ready = iter([False] * 11 + [True, False])
    monkeypatch.setattr(server, "_run_server", lambda: next(become_ready))

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 13:
            server.close()

    monkeypatch.setattr(server._closed, "wait", pause)
    server.run_until_closed()
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 1, 2]


def test_closed_server_ends_and_its_processes_go_on(make: Make, tmp_path: Path) -> None:
    server = make("steps:1", "hang")
    child = server.spawn(make_task(tmp_path))
    wait_until(lambda: child.poll_events(0.1))
    pid = server.pid
    assert pid is not None
    server.close()
    wait_until(lambda: gone(pid))
    assert child.poll_events(0.1) == []
    child.terminate()
    read_all_events(child)
    assert child.kill_and_wait() == ProcessExitStatus(code=75)


def test_server_and_processes_die_with_the_worker(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with worker:
        assert worker.stdout is not None
        pids = [int(pid) for pid in worker.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(gone(pid) for pid in pids)
        worker.kill()
    wait_until(lambda: all(gone(pid) for pid in pids), what="the end of both processes")


def test_gpu_tasks_get_a_fresh_interpreter(make: Make, tmp_path: Path) -> None:
    server = make("exit:0")
    child = server.spawn(make_task(tmp_path, "cuda:0"))
    assert not is_forked(child)
    read_all_events(child)
    assert child.kill_and_wait() == ProcessExitStatus(code=0)


def test_server_ends_when_it_has_grown() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert library.fork_for_each_request(theirs, max_growth_bytes=-1) is None
        assert ours.recv(64) == READY_MESSAGE


def test_process_that_is_not_started_ends_with_the_pipe(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker may fail between the fork and the start."""
    monkeypatch.setattr(ForkedProcess, "unblock", lambda _: None)
    server = make("exit:0")
    child = server.spawn(make_task(tmp_path))
    assert isinstance(child._process, ForkedProcess)
    child._process.stdin.close()
    assert child._process.wait() == 75
    child.kill_and_wait()  # closes the pipes


def test_environment_is_that_of_a_fresh_interpreter(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = {"HTTPS_PROXY": "http://user:hunter2@proxy"}
    for name, value in {**SECRETS, **proxy}.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "environment"
    server = make(f"environment:{file}", "steps:1", "hang")
    for from_hub in (True, False):
        task = make_task(tmp_path / str(from_hub), threads=2, from_hub=from_hub)
        child = server.spawn(task)
        wait_until(lambda child=child: child.poll_events(0.1))  # type: ignore[misc]
        assert is_forked(child) is not from_hub, "the server must see no password or token"
        if is_forked(child):
            inherited = Path(f"/proc/{child._process.pid}/environ").read_text()  # of the server
            assert "PATH=" in inherited
            assert "hunter2" not in inherited
        seen = json.loads(file.read_text())
        assert seen == child_environment(os.environ, task)
        assert ("HTTPS_PROXY" in seen) is ("HF_TOKEN" in seen) is from_hub
        child.kill_and_wait()


@pytest.fixture(scope="module")
def real() -> Iterator[ForkServerSupervisor]:
    """A fork server that has imported torch and transformers."""
    server = running_server()
    yield server
    server.close()


@pytest.mark.slow  # it imports torch
def test_server_has_a_single_thread(real: ForkServerSupervisor) -> None:
    assert len(list(Path(f"/proc/{real.pid}/task").iterdir())) == 1


@pytest.mark.slow  # a forked training: tests/e2e/test_main_job.py; a fresh one: test_openai.py
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("method", ["lora", "linear", "auto"])
def test_artifact_is_bitwise_equal_to_that_of_a_fresh_interpreter(
    real: ForkServerSupervisor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    threads: int,
) -> None:
    methods: dict[str, Any] = {
        "lora": {"type": "lora", "r": 4, "targets": ["query", "value", "mlp"]},
        "linear": {"type": "linear"},
        "auto": {"type": "auto", "candidates": [{"method": {"type": "probe"}}]},
    }
    spec = {
        "method": methods[method],
        "base": str(make_base(tmp_path / "base")),
        "data": {"source": str(make_reviews(tmp_path / "reviews.csv"))},
        "optim": {"epochs": 2, "batch_size": 8, "encoder_dropout": 0.1, "head_dropout": 0.1},
        "runtime": {"device": "cpu", "threads": threads},
    }
    products = []
    for name, start in (("forked", real.spawn), ("fresh", spawn.spawn_child)):
        monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path / f"cache-{name}"))
        task = replace(
            make_task(tmp_path / name, threads=threads),
            inputs=[tmp_path / "base", tmp_path / "reviews.csv"],
        )
        task.attempt_dir.spec.write_text(json.dumps(spec))
        child = start(task)
        assert is_forked(child) is (name == "forked")
        events = read_all_events(child, seconds=100)
        assert child.kill_and_wait() == ProcessExitStatus(code=0), task.attempt_dir.log.read_text()
        assert isinstance(events[-1], Finished)
        products.append(product(task.attempt_dir.out))
    assert products[0] == products[1]
