"""What befalls one of two processes, or both: one of them tells it, and neither stays."""

import json
import signal
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from lora_core.__main__ import read_spec
from lora_core.child_protocol import FAILED
from lora_core.errors.training import NonFiniteLoss
from tests.listener import Listener
from tests.lora_core.training.pairs import LORA, PLAIN, Pair, failures, saved
from tests.tiny_base import tokenizer

pytestmark = pytest.mark.e2e

Write = Callable[..., Path]
Train = Callable[..., tuple[Listener, Path]]


def test_no_number_in_one_process_stops_both_before_the_update(
    write: Write, base: Path, reviews: Path, train: Train
) -> None:
    """One text has a letter for which the base has no numbers."""
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
        train(read_spec(path))
    step = alone.value.detail["step"]
    assert step > 1
    statuses, events = Pair(path).both()
    assert statuses == [FAILED, FAILED]
    assert [e.message for e in events if e.event == "failed"] == [str(alone.value)]
    assert saved(events) == list(range(1, step))


def test_what_befalls_one_ends_both_and_is_told_once(random: Write) -> None:
    pair = Pair(random())
    statuses, events = pair.both("checkpoint_written@2:enospc")
    assert statuses == [FAILED, FAILED]
    assert failures(events) == ["disk_full"]
    assert saved(events) == [1]


@pytest.mark.parametrize("victim", [0, 1])
def test_who_is_left_alone_says_so(victim: int, random: Write, tmp_path: Path) -> None:
    pair, held = Pair(random()), tmp_path / "held"
    held.touch()
    pair.start(f"step@2:pause:{held}")
    pair.wait_for(event="step", step=2)
    pair.children[victim].kill()
    pair.children[victim].join(60)
    held.unlink()
    statuses, events = pair.left()
    assert {*statuses} == {FAILED, -signal.SIGKILL}
    assert failures(events) == ["process_lost"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"runtime": {"device": "cuda:0"}}, "too_few_devices"),
        ({"data": {"max_length": 65}}, "length_too_large"),
        ({"method": {"type": "magic"}}, "invalid_spec"),
    ],
)
def test_what_is_wrong_for_both_is_told_once(
    changes: dict[str, Any], code: str, write: Write
) -> None:
    path = write()
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    statuses, events = Pair(path).both()
    assert statuses == [FAILED, FAILED]
    assert failures(events) == [code]
