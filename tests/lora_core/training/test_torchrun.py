"""Two processes as a person starts them. With the same environment, but forked: test_ranks."""

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


def test_torchrun_starts_it(random: Write, tmp_path: Path) -> None:
    """What it tells and makes is what it does without `torchrun`."""
    path, out = random(), tmp_path / "out"
    done = subprocess.run(
        [*COMMAND, str(path), "--out", str(out)],
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    events = [parse_event(line) for line in done.stdout.splitlines()]
    pair = Pair(path, 300.0)
    assert pair.both()[0] == [0, 0]
    assert story(events) == story(pair.told)
    assert product(out) == product(pair.out)


def test_torchrun_passes_a_stop_on(random: Write, tmp_path: Path) -> None:
    path, held, saves = random(epochs=1000), tmp_path / "held", tmp_path / "saves"
    held.touch()
    child = subprocess.Popen(
        [*COMMAND, str(path), "--out", str(tmp_path / "out"),
         "--checkpoints", str(saves)],
        stdout=subprocess.DEVNULL, env={**os.environ, ENV_VARIABLE: f"step@2:pause:{held}"},
    )  # fmt: skip
    with child:
        wait_until(held.with_name("held.reached").exists, seconds=60)
        child.terminate()
        held.unlink()
        assert child.wait(60) == 1
    (only,) = saves.iterdir()
    manifest.verify(only)
