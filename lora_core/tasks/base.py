"""What a machine-learning problem adds to an encoder: collation, loss, figures, answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One padded micro-batch."""

    input_ids: Tensor  # (batch, length) int64
    attention_mask: Tensor  # (batch, length) int64, 0 at padding
    labels: Tensor  # (batch,) int64

    def to(self, device: str) -> "Batch":
        return Batch(*(t.to(device) for t in (self.input_ids, self.attention_mask, self.labels)))


class Task(Protocol):
    """One problem kind, for a fixed list of labels."""

    labels: Sequence[str]

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Summed over the batch: logits (batch, classes), labels (batch,) -> scalar."""
        ...

    def weight(self, labels: Sequence[int]) -> float:
        """What a summed loss is divided by: the number of examples, or the sum of their weights."""
        ...

    def metrics(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
        """`loss`, `accuracy`, `macro_f1` over a whole part."""
        ...

    def report(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Any]:
        """`metrics`, and the figures per class."""
        ...
