"""Processes are told apart even when their numbers come again."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.waiting import wait_until
from worker import process_identity
from worker.process_identity import Process

SLEEP = ["/bin/sleep", "300"]


def test_a_running_process_is_alive_and_a_killed_one_is_not() -> None:
    child = subprocess.Popen(SLEEP)
    known = process_identity.process(child.pid)
    assert process_identity.alive(known)
    child.kill()
    wait_until(lambda: not process_identity.alive(known))  # though nobody has reaped it yet
    child.wait()
    assert not process_identity.alive(known)


def test_the_same_number_with_another_start_or_boot_is_another_process() -> None:
    me = process_identity.process(os.getpid())
    assert process_identity.alive(me)
    assert not process_identity.alive(me._replace(start=me.start + 1))
    assert not process_identity.alive(me._replace(boot_id="another"))


def test_a_name_with_brackets_does_not_confuse(tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([str(program), "300"])
    try:
        assert process_identity.process(child.pid).start > process_identity.process(1).start
    finally:
        child.kill()
        child.wait()


def test_there_is_no_process_zero() -> None:
    with pytest.raises(ProcessLookupError):
        process_identity.process(0)


def test_a_worker_knows_itself() -> None:
    owner = process_identity.this_worker()
    assert owner.pid == os.getpid()
    assert not process_identity.gone(owner, silent=True)
    assert len(owner.id) <= 128


def test_a_worker_is_known_to_be_dead_only_where_it_can_be_seen() -> None:
    me = process_identity.this_worker()
    boot, container = me.boot_id.split("/")
    dead = replace(me, pid_start=me.pid_start - 1)
    assert process_identity.gone(dead, silent=False)
    before = replace(me, boot_id=f"another/{container}")  # a restart, or a machine of our name
    assert [process_identity.gone(before, silent=each) for each in (True, False)] == [True, False]
    assert not process_identity.gone(replace(dead, host="another"), silent=True)
    elsewhere = replace(dead, boot_id=f"{boot}/another")  # in another container
    assert not process_identity.gone(elsewhere, silent=True)
    older = replace(dead, boot_id=boot)  # as older versions wrote it
    assert not process_identity.gone(older, silent=True)


def test_a_group_is_killed_even_when_its_leader_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    program = (
        "import subprocess, pathlib, sys;"
        "pathlib.Path(sys.argv[1]).write_text(str(subprocess.Popen(['/bin/sleep', '300']).pid))"
    )
    command = [sys.executable, "-c", program, str(file)]
    leader = subprocess.Popen(command, start_new_session=True)
    known = process_identity.process(leader.pid)
    leader.wait()
    member = process_identity.process(int(file.read_text()))
    assert process_identity.alive(member)
    process_identity.kill_group(known)
    wait_until(lambda: not process_identity.alive(member))
    process_identity.kill_group(known)  # nobody is left: nothing happens


def test_the_group_of_a_stranger_with_the_same_number_is_spared() -> None:
    child = subprocess.Popen(SLEEP, start_new_session=True)
    known = process_identity.process(child.pid)
    try:
        process_identity.kill_group(Process(known.boot_id, known.pid, known.start - 1))
        process_identity.kill_group(Process("another boot", known.pid, known.start))
        assert process_identity.alive(known)
        process_identity.kill_group(known)
        assert child.wait(10) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()
