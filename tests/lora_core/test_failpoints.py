"""Failpoints trigger where and when they are configured, and nowhere else."""

import errno
import subprocess
import sys
from collections import Counter
from pathlib import Path
from threading import Thread

import pytest

from lora_core import failpoints
from tests.waiting import wait_until


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failpoints, "_hits", Counter())


def ask(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setenv("LORAWORKS_FAULT", fault)


def struck(point: str) -> bool:
    try:
        failpoints.failpoint(point)
    except OSError as error:
        return error.errno == errno.ENOSPC
    return False


def test_failpoint_is_off_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORAWORKS_FAULT", raising=False)
    assert not struck("step")


def test_failpoint_raises_disk_full(monkeypatch: pytest.MonkeyPatch) -> None:
    ask(monkeypatch, "saving:enospc")
    assert [struck(point) for point in ("step", "saving", "saving")] == [False, True, True]


def test_failpoint_triggers_at_the_nth_call_only(monkeypatch: pytest.MonkeyPatch) -> None:
    ask(monkeypatch, "step@3:enospc")
    assert [struck("step") for _ in range(4)] == [False, False, True, False]


def test_failpoint_is_active_while_a_file_exists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "a:b"
    ask(monkeypatch, f"step:enospc:{file}")
    assert not struck("step")
    file.touch()
    assert struck("step")
    assert file.exists(), "a disk stays full until somebody makes room"


def test_pause_lasts_as_long_as_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "held"
    file.touch()
    ask(monkeypatch, f"step:pause:{file}")
    thread = Thread(target=failpoints.failpoint, args=("step",))
    thread.start()
    wait_until(lambda: failpoints._hits["step"])
    thread.join(0.05)
    assert thread.is_alive()
    file.unlink()
    thread.join(10)
    assert not thread.is_alive()


@pytest.mark.parametrize(("action", "status"), [("kill", -9), ("exit139", 139)])
def test_kill_happens_once(action: str, status: int, tmp_path: Path) -> None:
    file = tmp_path / "once"
    file.touch()
    program = "from lora_core.failpoints import failpoint; failpoint('step')"
    environment = {"LORAWORKS_FAULT": f"step:{action}:{file}"}
    for expected in (status, 0):
        left = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
        assert left.returncode == expected
        assert not file.exists()


@pytest.mark.parametrize("fault", ["step", "step:burn", "step@x:kill", "step@:", ":"])
def test_unknown_failpoint_action_is_an_error(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(monkeypatch, fault)
    with pytest.raises(ValueError, match="LORAWORKS_FAULT"):
        failpoints.failpoint("saving")
