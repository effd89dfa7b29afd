"""The training process: what it gets, how it is heard, and that it never stays behind."""

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

from app.queue.transitions import ExitStatus
from lora_core.events import Evaluated, Event, Finished, Noted, StepLogged
from tests.job_rows import SPEC
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from worker import process_identity, spawn
from worker.spawn import TETHER, Child, Order, child_environment
from worker.workdir import Place

Start = Callable[..., Child]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    children = []

    def begin(*actions: str) -> Child:
        (tmp_path / "spec.json").write_text(json.dumps(SPEC))
        scripted(*actions)
        child = spawn.start(order(tmp_path))
        children.append(child)
        return child

    yield begin
    for child in children:
        child.wait()


def order(directory: Path, device: str = "cpu") -> Order:
    place = Place(UUID(int=1), 1, directory)
    return Order("train", place, resume=None, checkpoint_seconds=60, threads=1, device=device)


def hear(child: Child) -> list[Event]:
    """Everything until it has left."""
    events: list[Event] = []

    def ended() -> bool:
        more = child.read(0.1)
        events.extend(more or [])
        return more is None

    wait_until(ended)
    return events


def test_the_events_of_a_process_are_heard_to_the_end(start: Start) -> None:
    child = start("steps:200", "evaluated:test", "succeed")
    events = hear(child)
    assert [e.step for e in events if isinstance(e, StepLogged)] == list(range(1, 201))
    assert isinstance(events[-2], Evaluated)
    assert isinstance(events[-1], Finished)
    assert child.wait() == ExitStatus(code=0)


def test_lines_that_are_no_events_are_passed_over(start: Start) -> None:
    child = start("say:hello", 'say:{"event": "nonsense"}', "say:[1, 2", "steps:1", "succeed")
    assert [type(event) for event in hear(child)] == [StepLogged, Finished]


def test_a_line_is_put_together_from_its_pieces(start: Start) -> None:
    (event,) = hear(start("long:300000"))
    assert isinstance(event, Noted)
    assert len(event.message) == 300_000


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ("exit:65", ExitStatus(code=65)),
        ("exit:3", ExitStatus(code=3)),
        (f"signal:{signal.SIGSEGV}", ExitStatus(signal=signal.SIGSEGV)),
    ],
)
def test_the_way_it_left_is_told(start: Start, action: str, status: ExitStatus) -> None:
    child = start(action)
    hear(child)
    assert child.wait() == status


def test_asked_to_stop_it_leaves_by_itself(start: Start) -> None:
    child = start("steps:1", "hang")
    wait_until(lambda: child.read(0.1))
    child.stop()
    hear(child)
    assert child.wait() == ExitStatus(code=75)


def test_asking_one_that_has_just_left_changes_nothing(start: Start) -> None:
    child = start("steps:1", "succeed")
    os.waitid(os.P_PID, child._process.pid, os.WEXITED | os.WNOWAIT)
    child.stop()
    assert len(hear(child)) == 2
    assert child.wait() == ExitStatus(code=0)


def test_a_process_that_does_not_listen_is_killed(start: Start) -> None:
    child = start("ignore-term", "steps:1", "hang")
    wait_until(lambda: child.read(0.1))
    child.stop()
    assert child.read(0.2) == []
    child.kill()
    hear(child)
    assert child.wait() == ExitStatus(signal=signal.SIGKILL)


def test_a_process_that_hangs_leaves_its_stacks_in_the_log(start: Start, tmp_path: Path) -> None:
    child = start("steps:1", "hang")
    wait_until(lambda: child.read(0.1))
    child.abort()
    hear(child)
    assert child.wait() == ExitStatus(signal=signal.SIGABRT)
    assert "scripted_child.py" in (tmp_path / "child.log").read_text()


def test_what_it_started_does_not_outlive_it(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "helper"
    child = start(f"helper:{file}", "steps:1", "exit:0")
    hear(child)  # ends although the helper holds the pipe
    helper = int(file.read_text())
    assert child.wait() == ExitStatus(code=0)
    wait_until(lambda: not _runs(helper))


def test_a_stranger_with_its_pipe_keeps_nobody_waiting(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "stranger"
    child = start(f"stranger:{file}", "steps:1", "exit:0")
    assert [type(event) for event in hear(child)] == [StepLogged]
    os.kill(int(file.read_text()), signal.SIGKILL)


def test_a_process_that_cannot_be_written_down_is_not_left_behind(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []

    def full_disk(pid: int) -> process_identity.Process:
        begun.append(pid)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(process_identity, "process", full_disk)
    with pytest.raises(OSError, match="No space left"):
        start("hang")
    with pytest.raises(ChildProcessError):  # it is gone, and was reaped
        os.waitpid(begun[0], os.WNOHANG)


def test_it_leads_a_session_of_its_own_runs_niced_and_is_named_in_a_file(
    start: Start, tmp_path: Path
) -> None:
    child = start("steps:1", "hang")
    wait_until(lambda: child.read(0.1))
    known = process_identity.Process(*json.loads((tmp_path / "child.json").read_text()))
    assert process_identity.alive(known)
    assert os.getsid(known.pid) == known.pid
    assert os.getpriority(os.PRIO_PROCESS, known.pid) > os.getpriority(os.PRIO_PROCESS, 0)


SECRETS = {
    "LORAWORKS_DATABASE_URL": "postgresql://user:hunter2@db/loraworks",
    "LORAWORKS_PEPPER": "hunter2" * 8,
    "HF_TOKEN": "hf_hunter2",
    "HUGGING_FACE_HUB_TOKEN": "hf_hunter2",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "WANDB_API_KEY": "hunter2",
    "PGPASSWORD": "hunter2",
}


def test_the_process_sees_no_secret(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    hear(start(f"environment:{tmp_path / 'environment'}"))
    seen = json.loads((tmp_path / "environment").read_text())
    assert not SECRETS.keys() & seen.keys()
    assert "hunter2" not in json.dumps(seen)
    assert not any(name.startswith("LORAWORKS_") for name in seen if name != "LORAWORKS_CACHE")
    assert seen["OMP_NUM_THREADS"] == "1"
    assert Path(seen["TMPDIR"]).parent == tmp_path


def test_the_environment_keeps_what_is_needed_to_find_programs_and_caches() -> None:
    given = {
        "PATH": "/bin",
        "HF_HOME": "/cache",
        "CUDA_VISIBLE_DEVICES": "0,1,2",
        "OMP_NUM_THREADS": "9",
    }
    seen = child_environment(given | SECRETS, order(Path("/here"), "cuda:1"))
    own = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "1"}
    assert {name: seen[name] for name in given} == given | own
    seen = child_environment(given, order(Path("/here")))
    assert seen["CUDA_VISIBLE_DEVICES"] == ""


def test_the_kernel_kills_it_with_the_thread_that_started_it(start: Start, tmp_path: Path) -> None:
    started: list[Child] = []

    def begin_and_leave() -> None:
        child = start("deaf", "ignore-term", "steps:1", "hang")
        wait_until(lambda: child.read(0.1))
        started.append(child)

    thread = threading.Thread(target=begin_and_leave)
    thread.start()
    thread.join()
    hear(started[0])
    assert started[0].wait() == ExitStatus(signal=signal.SIGKILL)


def test_a_parent_that_left_before_the_tether_held_is_noticed() -> None:
    tether = [sys.executable, "-I", "-S", str(TETHER), str(os.getpid() + 1), "/bin/true"]
    done = subprocess.run(tether, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the parent left" in done.stderr


def _runs(pid: int) -> bool:
    try:
        return process_identity.alive(process_identity.process(pid))
    except ProcessLookupError:
        return False
