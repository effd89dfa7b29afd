"""Processes are identified across pid reuse."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.waiting import wait_until
from worker import process_identity
from worker.process_identity import ProcessIdentity

SLEEP = ["/bin/sleep", "300"]


def test_a_running_process_is_alive_and_a_killed_one_is_not() -> None:
    child = subprocess.Popen(SLEEP)
    identity = process_identity.identify(child.pid)
    assert process_identity.is_alive(identity)
    child.kill()
    wait_until(lambda: not process_identity.is_alive(identity))  # although it has not been reaped
    child.wait()
    assert not process_identity.is_alive(identity)


def test_same_pid_with_other_start_time_is_another_process() -> None:
    me = process_identity.identify(os.getpid())
    assert process_identity.is_alive(me)
    assert not process_identity.is_alive(me._replace(start=me.start + 1))
    assert not process_identity.is_alive(me._replace(boot_id="another"))


def test_process_name_with_parentheses(tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "300"])
    try:
        assert process_identity.identify(child.pid).start > process_identity.identify(1).start
    finally:
        child.kill()
        child.wait()


def test_there_is_no_process_zero() -> None:
    with pytest.raises(ProcessLookupError):
        process_identity.identify(0)


def test_current_worker_is_this_process() -> None:
    owner = process_identity.current_worker()
    assert owner.pid == os.getpid()
    assert not process_identity.is_worker_known_dead(owner, silent=True)
    assert len(owner.id) <= 128


def test_worker_is_dead_only_if_visible_from_here() -> None:
    me = process_identity.current_worker()
    boot, container = me.boot_id.split("/")
    dead = replace(me, pid_start=me.pid_start - 1)
    assert process_identity.is_worker_known_dead(dead, silent=False)
    before = replace(me, boot_id=f"another/{container}")  # a restart, or a machine of our name
    assert [
        process_identity.is_worker_known_dead(before, silent=each) for each in (True, False)
    ] == [
        True,
        False,
    ]
    assert not process_identity.is_worker_known_dead(replace(dead, host="another"), silent=True)
    elsewhere = replace(dead, boot_id=f"{boot}/another")  # in another container
    assert not process_identity.is_worker_known_dead(elsewhere, silent=True)
    older = replace(dead, boot_id=boot)  # as older versions wrote it
    assert not process_identity.is_worker_known_dead(older, silent=True)


def test_group_is_killed_without_its_leader(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    program = (
        "import subprocess, pathlib, sys;"
        "pathlib.Path(sys.argv[1]).write_text(str(subprocess.Popen(['/bin/sleep', '300']).pid))"
    )
    command = [sys.executable, "-c", program, str(file)]
    leader = subprocess.Popen(command, start_new_session=True)
    identity = process_identity.identify(leader.pid)
    leader.wait()
    member = process_identity.identify(int(file.read_text()))
    assert process_identity.is_alive(member)
    process_identity.kill_group(identity)
    wait_until(lambda: not process_identity.is_alive(member))
    process_identity.kill_group(identity)  # no process is left: a no-op


def test_unrelated_group_with_the_same_id_is_not_killed() -> None:
    child = subprocess.Popen(SLEEP, start_new_session=True)
    identity = process_identity.identify(child.pid)
    try:
        process_identity.kill_group(
            ProcessIdentity(identity.boot_id, identity.pid, identity.start - 1)
        )
        process_identity.kill_group(ProcessIdentity("another boot", identity.pid, identity.start))
        assert process_identity.is_alive(identity)
        process_identity.kill_group(identity)
        assert child.wait(10) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()
