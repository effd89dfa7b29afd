"""What is compared: the kinds of task, the encoders, and the cells in order."""

from dataclasses import dataclass
from typing import Any, Literal

from lora_core.specs.data import Split
from lora_core.specs.method import LoraSpec

Kind = Literal["multilabel", "pairs", "regression"]

BASE = "minilm-l6"
KINDS: tuple[Kind, ...] = ("multilabel", "pairs", "regression")
SIDES = ("ours", "trainer", "linear")
SEEDS = (0, 1, 2)
METHOD = LoraSpec(r=8, alpha=16.0)
EPOCHS, BATCH, MAX_LENGTH = 3, 16, 128
# Ours has its defaults, with a rate that it chooses. That of PEFT and the Trainer was chosen on the
# validation texts: with 1e-3, which `benchmarks.train` uses, three of six trainings failed.
RATE = 3e-4

SPEED_PAIRS = 5  # ours and the Trainer take turns
SPEED_TEXT_LENGTH = 256  # tokens

ACCURACY_CELLS = tuple(
    f"{kind}-{side}-{seed}" for kind in KINDS for side in SIDES for seed in SEEDS
)
SPEED_CELLS = tuple(
    f"speed-{encoder}-{side}-{number}"
    for encoder in ("modernbert", "deberta-v2")
    for number in range(SPEED_PAIRS)
    for side in ("ours", "trainer")
)


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    train: int
    validation: int
    test: int
    speed_texts: int  # of one training
    speed_layers: int
    speed_width: int

    @property
    def texts(self) -> dict[Split, int]:
        """Of each split."""
        return {
            Split.TRAIN: self.train, Split.VALIDATION: self.validation, Split.TEST: self.test
        }  # fmt: skip


FULL = Size(2000, 500, 2000, speed_texts=128, speed_layers=6, speed_width=384)
QUICK = Size(64, 32, 32, speed_texts=16, speed_layers=2, speed_width=64)

TASKS: dict[Kind, dict[str, Any]] = {
    "multilabel": {"type": "multi_label"},
    "pairs": {"type": "single_label"},
    "regression": {"type": "regression"},
}
