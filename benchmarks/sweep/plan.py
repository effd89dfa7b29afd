"""What is compared: the grid, its task, the two sizes of a run, and the cells in order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.train.plan import RATES, SOURCE
from lora_core.specs.data import DataSpec
from lora_core.specs.method import LayerRole, LoraSpec

TARGETS: Mapping[str, tuple[LayerRole, ...]] = {
    "qv": (LayerRole.QUERY, LayerRole.VALUE),
    "qv_mlp": (LayerRole.QUERY, LayerRole.VALUE, LayerRole.MLP),
}
LEARNING_RATE = RATES["lora_qv"]  # of every trial
MAX_LENGTH = 128  # tokens
ALPHA = 16.0  # of the competitor's trials: no other alpha takes another time
EVALUATION_BATCH = 64  # texts, of the tuned competitor; the Trainer's default is 8

# Half of the grid has each kind of targets, so the total is extrapolated from a few trials of each.
SAMPLED = {
    "default": ("competitor-default-qv-8", "competitor-default-qv_mlp-8"),
    "tuned": (
        "competitor-tuned-qv-4", "competitor-tuned-qv_mlp-16",
        "competitor-tuned-qv-16", "competitor-tuned-qv_mlp-4",
    ),
}  # fmt: skip
OURS = ("ours-halving", "ours-grid")
# Ours run between the competitor's, so that a machine that slows down favors neither.
CELLS = (*SAMPLED["tuned"][:2], *OURS, *SAMPLED["tuned"][2:], *SAMPLED["default"])


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    train_texts: int
    validation_texts: int
    test_texts: int
    alphas: tuple[float, ...]
    ranks: tuple[int, ...]
    halving: Mapping[str, Any]  # how trials are left out
    longest: float = (
        360.0  # seconds: of a competitor's training that takes longer, a part is measured
    )
    window: float = 60.0  # seconds of that part

    @property
    def trials(self) -> int:
        """Of the grid."""
        return len(self.alphas) * len(self.ranks) * len(TARGETS)

    @property
    def data(self) -> DataSpec:
        """Reviews of up to `MAX_LENGTH` tokens."""
        return DataSpec(
            source=SOURCE,
            train_size=self.train_texts,
            validation_size=self.validation_texts,
            test_size=self.test_texts,
            max_length=MAX_LENGTH,
        )


FULL = Size(
    2000, 500, 2000, (4.0, 8.0, 16.0, 32.0), (4, 8, 16),
    {"eta": 8, "min_budget": 1 / 16, "min_full_runs": 1, "validation_texts": 100},
)  # fmt: skip
QUICK = Size(32, 16, 32, (16.0,), (4, 16), {"eta": 2, "min_budget": 0.5, "validation_texts": 8})


def method(kind: str, rank: int) -> LoraSpec:
    """Of a competitor's trial."""
    return LoraSpec(r=rank, alpha=ALPHA, targets=TARGETS[kind])
