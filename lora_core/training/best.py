"""The best checkpoint so far, by a validation figure, and when to give up."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lora_core.specs.train import SelectBy, StopSpec


@dataclass
class Best:
    """Keeps the weights of the best evaluation; of equal ones the earliest."""

    spec: StopSpec
    step: int = 0
    score: float = float("-inf")  # higher is better
    state: dict[str, Tensor] = field(default_factory=dict)
    logits: NDArray[np.float32] | None = None  # on validation
    evaluations_since: int = 0

    def is_better(self, metrics: Mapping[str, float]) -> bool:
        """Whether these figures beat all before; what is not a number never does."""
        return self._score(metrics) > self.score

    def offer(
        self,
        step: int,
        metrics: Mapping[str, float],
        state: dict[str, Tensor],
        logits: NDArray[np.float32],
    ) -> None:
        """Keep this state and what it answered to the validation part."""
        self.step, self.score = step, self._score(metrics)
        self.state, self.logits = state, logits
        self.evaluations_since = 0

    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.spec.patience is not None and self.evaluations_since >= self.spec.patience

    def _score(self, metrics: Mapping[str, float]) -> float:
        value = metrics[self.spec.select_by]
        return -value if self.spec.select_by is SelectBy.LOSS else value
