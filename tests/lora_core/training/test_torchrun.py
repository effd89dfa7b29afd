"""Two processes started by torchrun."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_core import manifest
from lora_core.events import parse_event
from lora_core.failpoints import ENV_VARIABLE
from tests.lora_core.training.pairs import Pair
from tests.lora_core.training.twins import product, story
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

Write = Callable[..., Path]

LAUNCHER = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
COMMAND = [*LAUNCHER, "-m", "lora_core", "train"]


def test_torchrun_starts_a_run(random: Write, tmp_path: Path) -> None:
    """Events and artifact equal those without `torchrun`."""
    path, out = random(), tmp_path / "out"
    done = subprocess.run(
        [*COMMAND, str(path), "--out", str(out)],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [parse_event(line) for line in done.stdout.splitlines()]
    pair = Pair(path, 300.0)
    assert pair.both()[0] == [0, 0]
    assert story(events) == story(pair.events)
    assert product(out) == product(pair.out)


def test_torchrun_forwards_a_stop(random: Write, tmp_path: Path) -> None:
    path, hold_file, saves = random(epochs=1000), tmp_path / "held", tmp_path / "saves"
    hold_file.touch()
    child = subprocess.Popen(
        [*COMMAND, str(path), "--out", str(tmp_path / "out"),
         "--checkpoints", str(saves)],
        stdout=subprocess.DEVNULL, env={**os.environ, ENV_VARIABLE: f"step@2:pause:{hold_file}"},
    )  # fmt: skip
    with child:
        wait_until(hold_file.with_name("held.reached").exists, seconds=60)
        child.terminate()
        hold_file.unlink()
        assert child.wait(60) == 1
    (only,) = saves.iterdir()
    manifest.verify(only)
