"""The tuned competitor trains like a plain script with PEFT and the Trainer."""

import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from benchmarks.train import cells, competitor, ours, pairs, script
from benchmarks.train.plan import PAIRED, QUICK, Size
from lora_core import cpu
from lora_core.encoders.load import BaseCheckpoint, resolve_base
from lora_core.specs.data import DataSpec
from tests.tiny_base import make_base, make_reviews

SIZE = Size(0.0, 32, 1, 0, 0, 0, 0.0, pair_steps=1)
VOCABULARY = 128  # of the tiny base

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


@dataclass
class Seen:
    """Of each step: the ids that were embedded, and whether bf16 was on in the first block."""

    ids: list[Any] = field(default_factory=list)
    in_bf16: list[bool] = field(default_factory=list)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BaseCheckpoint:
    """A tiny base and tiny reviews instead of those of the benchmark, always in bf16."""
    directory = str(make_base(tmp_path / "base"))
    reviews = str(make_reviews(tmp_path / "reviews.csv"))
    data = DataSpec(source=reviews, train_size=32, validation_size=4, test_size=4, max_length=32)
    for module in (competitor, pairs):
        monkeypatch.setattr(module, "BASE", directory)
        monkeypatch.setattr(module, "rate_data", lambda _: data)
    monkeypatch.setattr(cpu, "has_fast_bf16", lambda: True)
    monkeypatch.setattr(pairs, "has_fast_bf16", lambda: True)
    return resolve_base(directory)


@pytest.fixture
def seen() -> Iterator[Seen]:
    found = Seen()

    def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if isinstance(module, nn.Embedding) and module.num_embeddings == VOCABULARY:
            found.ids.append(inputs[0].tolist())
            found.in_bf16.append(torch.is_autocast_enabled("cpu"))

    hook = register_module_forward_pre_hook(look)
    yield found
    hook.remove()


@pytest.mark.slow
@pytest.mark.usefixtures("base")
def test_every_step_of_the_tuned_competitor_is_in_bf16(seen: Seen) -> None:
    metrics = competitor.rate(PAIRED, "tuned", SIZE)
    assert metrics["precision"] == "bf16"
    assert metrics["steps"] == SIZE.a_pass
    assert seen.in_bf16 == [True] * (SIZE.warmup + SIZE.a_pass)


@pytest.mark.slow  # trains with the whole script
def test_harness_and_script_train_on_the_same_batches(
    base: BaseCheckpoint,
    seen: Seen,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = pairs.in_order(base, SIZE)
    harness = competitor.rate_in_order(PAIRED, texts, SIZE)
    of_harness = Seen([*seen.ids], [*seen.in_bf16])
    seen.ids.clear()
    seen.in_bf16.clear()

    (tmp_path / "texts.json").write_text(json.dumps(texts))
    words = pairs.script_arguments(base, tmp_path / "texts.json", SIZE)
    monkeypatch.setattr("sys.argv", ["script.py", *words])
    script.main()
    plain = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert seen == of_harness
    assert seen.in_bf16 == [True] * (SIZE.warmup + SIZE.pair_steps)
    assert [len(batch) for batch in seen.ids] == [16, 16]
    assert harness["steps"] == plain["steps"] == SIZE.pair_steps
    for side in (harness, plain):
        assert side["reviews_per_s"] == pytest.approx(16 / side["steps_seconds"])


def test_script_imports_nothing_of_this_project() -> None:
    found = set()
    for node in ast.walk(ast.parse(pairs.SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module).partition(".")[0])
    assert found - sys.stdlib_module_names == {"torch", "peft", "transformers"}


@pytest.mark.parametrize(
    ("cell", "prepared"),
    [
        ("rate-lora_qv-ours", True),
        ("rate-lora_qv-tuned", False),
        ("rate-lora_qv-default", False),
        ("accuracy-lora_qv-tuned", False),
        ("pair-1", False),
    ],
)
def test_process_settings_apply_to_our_side_only(
    cell: str, prepared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings of threads and memory, which a competitor's process does not get."""
    made: list[str] = []
    for name in ("limit_openmp_spinning", "retain_freed_memory"):
        monkeypatch.setattr(cells, name, lambda name=name: made.append(name))
    for module, measure in (
        (ours, "rate"),
        (competitor, "rate"),
        (competitor, "accuracy"),
        (pairs, "measure"),
    ):
        monkeypatch.setattr(module, measure, lambda *_: {})
    cells.run(cell, QUICK)
    assert made == ["limit_openmp_spinning", "retain_freed_memory"] * prepared
