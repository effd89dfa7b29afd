"""The best weights so far, by a validation figure, and when to give up."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lora_core.specs.frozen import Float, Frozen, Int
from lora_core.specs.train import SelectBy, StopSpec


class BestFigures(Frozen):
    """What a checkpoint keeps beside the weights and logits; without a score there are none."""

    step: Int
    score: Float | None
    evaluations_since: Int


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

    def figures(self) -> BestFigures:
        """The numbers; weights and logits are tensors."""
        score = self.score if self.logits is not None else None
        return BestFigures(step=self.step, score=score, evaluations_since=self.evaluations_since)

    def restore(
        self, figures: BestFigures, state: dict[str, Tensor], logits: Tensor | None
    ) -> None:
        """Go on from there."""
        self.step, self.evaluations_since = figures.step, figures.evaluations_since
        self.score = float("-inf") if figures.score is None else figures.score
        self.state = {name: tensor.clone() for name, tensor in state.items()}  # of no file
        self.logits = None if logits is None else logits.clone().numpy()

    def _score(self, metrics: Mapping[str, float]) -> float:
        value = metrics[self.spec.select_by]
        return -value if self.spec.select_by is SelectBy.LOSS else value
