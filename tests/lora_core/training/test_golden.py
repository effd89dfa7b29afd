"""Losses that a code change must not alter unless it raises `TRAINING_VERSION`.

`UPDATE_GOLDEN=1 pytest tests/lora_core/training/test_golden.py` writes those of a new version.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_core.specs.method import HeadMode, LoraVariant
from lora_core.specs.train import TrainSpec
from lora_core.training_version import TRAINING_VERSION
from tests.recording_observer import RecordingObserver
from tests.slow import slow_but

FILE = Path("tests/assets/golden_losses.json")
MOVED = (
    "{name} trains otherwise than under TRAINING_VERSION {version}. If that is meant, raise it in "
    "lora_core/training_version.py and write the new losses with UPDATE_GOLDEN=1."
)
LORA = {"type": "lora", "r": 4, "targets": ["query", "value", "mlp"]}
RUNS: dict[str, dict[str, Any]] = {
    **{variant: {"method": {**LORA, "variant": variant}} for variant in LoraVariant},
    # The usual rate of these runs would be chaotic: rounding errors would soon dominate.
    "unscaled": {"method": {**LORA, "variant": "unscaled"}, "optim": {"learning_rate": 5e-5}},
    **{f"head {head}": {"method": {**LORA, "head": head}} for head in HeadMode},
    "baseline": {"method": {"type": "baseline", "blocks": 1}},
    "full": {"method": {"type": "full"}},
    "every default": {
        "method": {"type": "lora"},
        "optim": {"learning_rate": None, "batch_size": 32},
    },
    "seed": {"method": {"type": "lora"}, "preset": "seed", "optim": {"learning_rate": 5e-5}},
    "dropout": {
        "method": {**LORA, "dropout": 0.1},
        "optim": {"encoder_dropout": 0.1, "head_dropout": 0.2},
    },
    "balanced": {"method": LORA, "task": {"class_weights": "balanced"}},
    "cosine": {"method": LORA, "optim": {"decay": "cosine", "weight_decay": 0.1}},
    "short": {"method": LORA, "data": {"max_length": 8}},
    "another split": {"method": LORA, "data": {"split_seed": 1, "train_size": 20}},
}


# Fast: what computes in another way. Variants and heads are compared with PEFT.
QUICK = ("lora", "baseline", "full", "every default", "dropout")


@pytest.mark.parametrize("name", slow_but(RUNS, *QUICK))
def test_losses_match_the_golden_file(
    name: str,
    spec: Callable[..., TrainSpec],
    train: Callable[..., tuple[RecordingObserver, Path]],
) -> None:
    settings = {"runtime": {"precision": "fp32", "device": "cpu"}, **RUNS[name]}
    observer, _ = train(spec(**settings))
    losses = [event.loss for event in observer.all("step")]
    losses += [event.metrics["loss"] for event in observer.all("evaluated")]
    if os.environ.get("UPDATE_GOLDEN"):
        _write(name, losses)
    found = json.loads(FILE.read_text())
    moved = MOVED.format(name=name, version=found["training_version"])
    assert found["training_version"] == TRAINING_VERSION, "write the losses: UPDATE_GOLDEN=1"
    # Processors sum in different orders, and rounding errors grow over the steps.
    assert losses == pytest.approx(found["losses"][name], rel=1e-3, abs=1e-4), moved


def _write(name: str, losses: list[float]) -> None:
    kept = json.loads(FILE.read_text()) if FILE.exists() else {}
    if kept.get("training_version") != TRAINING_VERSION:
        kept = {"training_version": TRAINING_VERSION, "losses": {}}
    kept["losses"][name] = [round(loss, 7) for loss in losses]
    kept["losses"] = dict(sorted(kept["losses"].items()))
    FILE.write_text(json.dumps(kept, indent=1) + "\n")
