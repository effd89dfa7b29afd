"""The tuned rival trains as a plain script of PEFT and the Trainer would."""

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

from benchmarks.train import cells, ours, pairs, rival, script
from benchmarks.train.plan import METHODS, PAIRED, QUICK, Size
from benchmarks.train.trainer import arguments, train
from benchmarks.train.window import Window
from lora_core import cpu
from lora_core.encoders.load import PretrainedBase, resolve_base
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
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PretrainedBase:
    """A tiny base and reviews in the place of those of the benchmark, and bf16 wherever it runs."""
    directory = str(make_base(tmp_path / "base"))
    reviews = str(make_reviews(tmp_path / "reviews.csv"))
    data = DataSpec(source=reviews, train_size=32, validation_size=4, test_size=4, max_length=32)
    for module in (rival, pairs):
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


@pytest.mark.usefixtures("base")
def test_every_step_of_the_tuned_rival_is_in_bf16(seen: Seen) -> None:
    figures = rival.rate(PAIRED, "tuned", SIZE)
    assert figures["precision"] == "bf16"
    assert figures["steps"] == SIZE.a_pass
    assert seen.in_bf16 == [True] * (SIZE.warmup + SIZE.a_pass)


def test_a_model_is_trained_once(base: PretrainedBase) -> None:
    machine, texts = rival.start(), [{"input_ids": [1, 2], "labels": 0}] * 16
    model = rival.build_model(base, METHODS[PAIRED], tuned=True, head=rival.initial_head(base))
    settings = arguments(1e-3, "tuned", machine, epochs=2)
    train(model, texts, base, settings, Window(0, 1))
    with pytest.raises(ValueError, match="train a fresh one"):
        train(model, texts, base, settings, Window(0, 1))


def test_harness_and_script_train_the_same(
    base: PretrainedBase,
    seen: Seen,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    texts = pairs.in_order(base, SIZE)
    harness = rival.rate_in_order(PAIRED, texts, SIZE)
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


def test_the_script_imports_none_of_our_code() -> None:
    found = set()
    for node in ast.walk(ast.parse(pairs.SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found.add(str(node.module).partition(".")[0])
    assert found - sys.stdlib_module_names == {"torch", "peft", "transformers"}


@pytest.mark.parametrize(("number", "first"), [(1, "harness"), (2, "script")])
def test_sides_of_a_pair_take_turns(
    number: int, first: str, base: PretrainedBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def run(what: str, *words: str) -> dict[str, Any]:
        ran.append(what.partition(" ")[0])
        isolated = words[:2] == ("-I", str(pairs.SCRIPT))
        assert isolated == (ran[-1] == "script")
        rate = 19.0 if ran[-1] == "harness" else 20.0
        return {"reviews_per_s": rate, "steps_seconds": 1, "peak_mb": 1, "precision": "bf16"}

    monkeypatch.setattr(pairs, "last_line_of", run)
    figures = pairs.measure(number, SIZE)
    assert ran[0] == figures["first"] == first
    assert sorted(ran) == ["harness", "script"]
    assert figures["harness_vs_script"] == pytest.approx(0.95)


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
def test_only_our_own_side_gets_settings_of_ours(
    cell: str, prepared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of threads and memory. A rival's process is as it would be without us."""
    made: list[str] = []
    for name in ("limit_openmp_spinning", "retain_freed_memory"):
        monkeypatch.setattr(cells, name, lambda name=name: made.append(name))
    for module, measure in (
        (ours, "rate"),
        (rival, "rate"),
        (rival, "accuracy"),
        (pairs, "measure"),
    ):
        monkeypatch.setattr(module, measure, lambda *_: {})
    cells.run(cell, QUICK)
    assert made == ["limit_openmp_spinning", "retain_freed_memory"] * prepared
