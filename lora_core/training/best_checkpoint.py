"""The best weights so far, by a validation figure, and when to give up."""

import math
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
    loss: Float | None = None  # on validation; checkpoints of training version 1 lack it


@dataclass
class Best:
    """Keeps the weights of the best evaluation.

    Ties on the chosen metric go to the lower validation loss, then to the later step: on few texts
    accuracy ties often, and the earliest of equal weights have hardly been trained.
    """

    spec: StopSpec
    step: int = 0
    score: float = float("-inf")  # higher is better
    loss: float = float("inf")  # on validation
    state: dict[str, Tensor] = field(default_factory=dict)
    logits: NDArray[np.float32] | None = None  # on validation
    evaluations_since: int = 0

    def is_better(self, metrics: Mapping[str, float]) -> bool:
        """Whether these weights are to be kept; NaN never is."""
        if self.spec.select_by is SelectBy.LAST:
            return math.isfinite(metrics["loss"])
        return (self._score(metrics), -metrics["loss"]) >= (self.score, -self.loss)

    def offer(
        self,
        step: int,
        metrics: Mapping[str, float],
        state: dict[str, Tensor],
        logits: NDArray[np.float32],
    ) -> None:
        """Keep this state and its logits on validation. A tie does not reset patience."""
        score = self._score(metrics)
        self.evaluations_since = 0 if score > self.score else self.evaluations_since + 1
        self.step, self.score, self.loss = step, score, metrics["loss"]
        self.state, self.logits = state, logits

    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.spec.patience is not None and self.evaluations_since >= self.spec.patience

    def figures(self) -> BestFigures:
        """The numbers; weights and logits are tensors."""
        known = self.logits is not None
        return BestFigures(
            step=self.step,
            score=self.score if known else None,
            evaluations_since=self.evaluations_since,
            loss=self.loss if math.isfinite(self.loss) else None,
        )

    def restore(
        self, figures: BestFigures, state: dict[str, Tensor], logits: Tensor | None
    ) -> None:
        """Go on from there."""
        self.step, self.evaluations_since = figures.step, figures.evaluations_since
        self.score = float("-inf") if figures.score is None else figures.score
        self.loss = float("inf") if figures.loss is None else figures.loss
        self.state = {name: tensor.clone() for name, tensor in state.items()}  # of no file
        self.logits = None if logits is None else logits.clone().numpy()

    def _score(self, metrics: Mapping[str, float]) -> float:
        if self.spec.select_by is SelectBy.LAST:
            return 0.0  # each one is as good as the one before, and later
        value = metrics[self.spec.select_by or SelectBy.MACRO_F1]
        return -value if self.spec.select_by is SelectBy.LOSS else value
