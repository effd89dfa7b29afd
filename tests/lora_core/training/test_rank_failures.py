"""Failures of one or both of two processes: reported once, and both exit."""

import json
import signal
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.distributed import DistNetworkError

from lora_core.__main__ import read_input
from lora_core.child_protocol import EXIT_FAILED
from lora_core.distributed import process_group
from lora_core.errors.training import DistributedProcessLost, NonFiniteLoss
from lora_core.specs.train import TrainSpec
from tests.lora_core.training.pairs import (
    LORA,
    PLAIN,
    Pair,
    environments,
    failures,
    open_store,
    saved,
)
from tests.recording_observer import RecordingObserver
from tests.tiny_base import tokenizer

pytestmark = pytest.mark.e2e

Write = Callable[..., Path]
Train = Callable[..., tuple[RecordingObserver, Path]]


def test_nonfinite_loss_in_one_process_stops_both_before_the_update(
    write: Write, base: Path, reviews: Path, train: Train
) -> None:
    """One text contains a letter whose embedding is NaN."""
    weights = load_file(base / "model.safetensors")
    weights["distilbert.embeddings.word_embeddings.weight"][tokenizer().token_to_id("q")] = nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    header, *rows = reviews.read_text().splitlines()
    parts = ["validation", "test", "train", "train"] * (len(rows) // 4)
    rows[50] = f"q {rows[50]}"
    lines = [f"{row},{part}" for row, part in zip(rows, parts, strict=True)]
    reviews.write_text("\n".join([f"{header},split", *lines]))
    path = write(method=LORA, optim=PLAIN, head_init="random")
    with pytest.raises(NonFiniteLoss) as alone:
        train(read_input(path, TrainSpec))
    step = alone.value.detail["step"]
    assert step > 1
    statuses, events = Pair(path).both()
    assert statuses == [EXIT_FAILED, EXIT_FAILED]
    assert [e.message for e in events if e.event == "failed"] == [str(alone.value)]
    assert saved(events) == list(range(1, step))


def test_failure_of_one_process_ends_both_and_is_reported_once(random: Write) -> None:
    pair = Pair(random())
    statuses, events = pair.both("checkpoint_written@2:enospc")
    assert statuses == [EXIT_FAILED, EXIT_FAILED]
    assert failures(events) == ["disk_full"]
    assert saved(events) == [1]


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_process_that_lost_its_peer_reports_it(victim: int, random: Write, tmp_path: Path) -> None:
    pair, hold_file = Pair(random()), tmp_path / "held"
    hold_file.touch()
    pair.start(f"step@2:pause:{hold_file}")
    pair.wait_for(event="step", step=2)
    pair.children[victim].kill()
    pair.children[victim].join(60)
    hold_file.unlink()
    statuses, events = pair.left()
    assert {*statuses} == {EXIT_FAILED, -signal.SIGKILL}
    assert failures(events) == ["process_lost"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"runtime": {"device": "cuda:0"}}, "too_few_devices"),
        pytest.param({"data": {"max_length": 65}}, "length_too_large", marks=pytest.mark.slow),
        pytest.param({"method": {"type": "magic"}}, "invalid_spec", marks=pytest.mark.slow),
    ],
)
def test_failure_of_both_processes_is_reported_once(
    changes: dict[str, Any], code: str, write: Write
) -> None:
    path = write()
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    statuses, events = Pair(path).both()
    assert statuses == [EXIT_FAILED, EXIT_FAILED]
    assert failures(events) == [code]


def test_process_that_connects_to_one_that_has_failed_exits_silently(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other one may have read a bad spec and closed its connections meanwhile."""
    store = open_store()
    for name, value in environments(store)[1].items():
        monkeypatch.setenv(name, value)

    def connect(*_: Any, **__: Any) -> None:
        raise DistNetworkError("Connection closed by peer")

    monkeypatch.setattr(dist, "init_process_group", connect)
    with (
        pytest.raises(DistributedProcessLost),
        process_group(),
    ):  # nobody has reported anything: it does
        raise AssertionError
    with pytest.raises(SystemExit) as silent, process_group():
        raise AssertionError
    assert silent.value.code == EXIT_FAILED
