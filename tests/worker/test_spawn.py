"""The training process: environment, events, signals, and cleanup."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest

from app.queue.transitions import ProcessExitStatus
from lora_core.events import Evaluated, Event, Finished, NoteLogged, StepLogged
from tests.job_rows import SPEC
from tests.slow import slow_but
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from worker import process_identity, spawn
from worker.fork_server_supervisor import ForkServerSupervisor
from worker.spawn import (
    DIE_WITH_PARENT_EXEC,
    ChildProcess,
    ChildTask,
    ForkedProcess,
    child_environment,
)
from worker.workdir import AttemptDir

Start = Callable[..., ChildProcess]
WAYS = ["fresh", "forked"]
# For what depends on how a process has started.
in_both_ways = pytest.mark.parametrize("start", WAYS, indirect=True)


@pytest.fixture(params=slow_but(WAYS, "forked"))
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Starts a scripted process, in a fresh interpreter or by a fork server."""
    children = []
    servers: list[ForkServerSupervisor] = []

    def begin(*actions: str) -> ChildProcess:
        (tmp_path / "spec.json").write_text(json.dumps(SPEC))
        scripted(*actions)
        if request.param == "fresh":
            child = spawn.spawn_child(make_task(tmp_path))
        else:
            servers.append(running_server())
            child = servers[-1].spawn(make_task(tmp_path))
            assert isinstance(child._process, ForkedProcess)
        children.append(child)
        return child

    yield begin
    for child in children:
        child.kill_and_wait()
    for server in servers:
        server.close()


def running_server() -> ForkServerSupervisor:
    """A fork server that accepts requests."""
    server = ForkServerSupervisor()
    threading.Thread(target=server.run_until_closed, daemon=True).start()
    wait_until(lambda: server.pid is not None, what="the fork server")
    return server


def make_task(directory: Path, device: str = "cpu") -> ChildTask:
    attempt_dir = AttemptDir(UUID(int=1), 1, directory)
    return ChildTask(
        "train", attempt_dir, resume_from=None, checkpoint_seconds=60, threads=1, device=device
    )


def read_all_events(child: ChildProcess, *, seconds: float = 20) -> list[Event]:
    """Return all events until the process has exited."""
    events: list[Event] = []

    def ended() -> bool:
        more = child.poll_events(0.1)
        events.extend(more or [])
        return more is None

    wait_until(ended, seconds=seconds)
    return events


def test_events_are_read_to_the_end(start: Start) -> None:
    child = start("steps:200", "evaluated:test", "succeed")
    events = read_all_events(child)
    assert [e.step for e in events if isinstance(e, StepLogged)] == list(range(1, 201))
    assert isinstance(events[-2], Evaluated)
    assert isinstance(events[-1], Finished)
    assert child.kill_and_wait() == ProcessExitStatus(code=0)


def test_lines_that_are_not_events_are_skipped(start: Start) -> None:
    child = start("say:hello", 'say:{"event": "nonsense"}', "say:[1, 2", "steps:1", "succeed")
    assert [type(event) for event in read_all_events(child)] == [StepLogged, Finished]


def test_line_is_assembled_from_chunks(start: Start) -> None:
    (event,) = read_all_events(start("long:300000"))
    assert isinstance(event, NoteLogged)
    assert len(event.message) == 300_000


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ("exit:65", ProcessExitStatus(code=65)),
        ("exit:3", ProcessExitStatus(code=3)),
        (f"signal:{signal.SIGSEGV}", ProcessExitStatus(signal=signal.SIGSEGV)),
    ],
)
def test_exit_status_is_returned(start: Start, action: str, status: ProcessExitStatus) -> None:
    child = start(action)
    read_all_events(child)
    assert child.kill_and_wait() == status


@in_both_ways
def test_process_exits_on_sigterm(start: Start) -> None:
    child = start("steps:1", "hang")
    wait_until(lambda: child.poll_events(0.1))
    child.terminate()
    read_all_events(child)
    assert child.kill_and_wait() == ProcessExitStatus(code=75)


def test_stopping_an_exited_process_changes_nothing(start: Start) -> None:
    child = start("steps:1", "succeed")
    os.waitid(os.P_PID, child._process.pid, os.WEXITED | os.WNOWAIT)
    child.terminate()
    assert len(read_all_events(child)) == 2
    assert child.kill_and_wait() == ProcessExitStatus(code=0)


def test_process_ignoring_sigterm_is_killed(start: Start) -> None:
    child = start("ignore-term", "steps:1", "hang")
    wait_until(lambda: child.poll_events(0.1))
    child.terminate()
    assert child.poll_events(0.2) == []
    child.kill()
    read_all_events(child)
    assert child.kill_and_wait() == ProcessExitStatus(signal=signal.SIGKILL)


def test_aborted_process_logs_its_stack_traces(start: Start, tmp_path: Path) -> None:
    child = start("steps:1", "hang")
    wait_until(lambda: child.poll_events(0.1))
    child.abort_with_traceback()
    read_all_events(child)
    assert child.kill_and_wait() == ProcessExitStatus(signal=signal.SIGABRT)
    assert "scripted_child.py" in (tmp_path / "child.log").read_text()


def test_children_of_the_process_are_killed(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "helper"
    child = start(f"helper:{file}", "steps:1", "exit:0")
    read_all_events(child)  # ends although the helper holds the pipe
    helper = int(file.read_text())
    assert child.kill_and_wait() == ProcessExitStatus(code=0)
    wait_until(lambda: not _runs(helper))


def test_grandchild_holding_the_pipe_does_not_block(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "stranger"
    child = start(f"stranger:{file}", "steps:1", "exit:0")
    assert [type(event) for event in read_all_events(child)] == [StepLogged]
    os.kill(int(file.read_text()), signal.SIGKILL)


def test_process_is_killed_if_its_pid_file_cannot_be_written(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def full_disk(pid: int) -> process_identity.ProcessIdentity:
        begun.append(pid)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(process_identity, "identify", full_disk)
    with pytest.raises(OSError, match="No space left"):
        start("hang")
    with pytest.raises(ChildProcessError):  # it is gone, and was reaped
        os.waitpid(begun[0], os.WNOHANG)


@in_both_ways
def test_process_has_own_session_niceness_and_pid_file(start: Start, tmp_path: Path) -> None:
    child = start("steps:1", "hang")
    wait_until(lambda: child.poll_events(0.1))
    identity = process_identity.ProcessIdentity(*json.loads((tmp_path / "child.json").read_text()))
    assert process_identity.is_alive(identity)
    assert os.getsid(identity.pid) == identity.pid
    assert os.getpriority(os.PRIO_PROCESS, identity.pid) > os.getpriority(os.PRIO_PROCESS, 0)


SECRETS = {
    "LORAWORKS_DATABASE_URL": "postgresql://user:hunter2@db/loraworks",
    "LORAWORKS_PEPPER": "hunter2" * 8,
    "HF_TOKEN": "hf_hunter2",
    "HUGGING_FACE_HUB_TOKEN": "hf_hunter2",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "WANDB_API_KEY": "hunter2",
    "NVIDIA_API_KEY": "hunter2",
    "PGPASSWORD": "hunter2",
}


@in_both_ways
def test_process_environment_contains_no_secrets(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    read_all_events(start(f"environment:{tmp_path / 'environment'}"))
    seen = json.loads((tmp_path / "environment").read_text())
    assert not SECRETS.keys() & seen.keys()
    assert "hunter2" not in json.dumps(seen)
    assert not any(name.startswith("LORAWORKS_") for name in seen if name != "LORAWORKS_CACHE")
    assert seen["OMP_NUM_THREADS"] == "1"
    assert Path(seen["TMPDIR"]).parent == tmp_path / "workspace"


def test_environment_keeps_programs_and_caches() -> None:
    given = {
        "PATH": "/bin",
        "HF_HOME": "/cache",
        "CUDA_VISIBLE_DEVICES": "0,1,2",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "OMP_NUM_THREADS": "9",
    }
    seen = child_environment(given | SECRETS, make_task(Path("/here"), "cuda:1"))
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "1"}
    assert {name: seen[name] for name in given} == given | own
    seen = child_environment(given, make_task(Path("/here")))
    assert seen["CUDA_VISIBLE_DEVICES"] == ""


def test_fresh_process_dies_with_its_parent_thread(tmp_path: Path) -> None:
    started: list[ChildProcess] = []
    scripted("deaf", "ignore-term", "steps:1", "hang")

    def begin_and_leave() -> None:
        child = spawn.spawn_child(make_task(tmp_path))
        wait_until(lambda: child.poll_events(0.1))
        started.append(child)

    thread = threading.Thread(target=begin_and_leave)
    thread.start()
    thread.join()
    read_all_events(started[0])
    assert started[0].kill_and_wait() == ProcessExitStatus(signal=signal.SIGKILL)


def test_child_exec_notices_a_parent_that_has_exited() -> None:
    launcher = [
        sys.executable,
        "-I",
        "-S",
        str(DIE_WITH_PARENT_EXEC),
        str(os.getpid() + 1),
        "/bin/true",
    ]
    done = subprocess.run(launcher, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the parent exited" in done.stderr


def _runs(pid: int) -> bool:
    try:
        return process_identity.is_alive(process_identity.identify(pid))
    except ProcessLookupError:
        return False
