"""The best weights so far, by a validation metric, and early stopping."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lora_core.specs.fields import Float, FrozenModel, Int
from lora_core.specs.train import CheckpointSelectionAndStopSpec, SelectBy


class BestWeightsState(FrozenModel):
    """The part of `BestWeights` that goes into state.json; weights and logits are tensors."""

    step: Int
    score: Float | None  # None: no evaluation was kept yet, so there are no weights and logits
    evaluations_since: Int
    loss: Float | None = None  # on validation; checkpoints of training version 1 lack it


@dataclass
class BestWeights:
    """Keeps the weights of the best evaluation.

    Ties on the selected metric go to the lower validation loss, then to the later step: on few
    texts accuracy often ties, and the earliest of several equal weights have hardly been trained.
    """

    spec: CheckpointSelectionAndStopSpec
    step: int = 0
    score: float = float("-inf")  # higher is better
    loss: float = float("inf")  # on validation
    weights: dict[str, Tensor] = field(default_factory=dict)
    logits: NDArray[np.float32] | None = None  # on validation
    evaluations_since: int = 0

    def is_better(self, metrics: Mapping[str, float]) -> bool:
        """Return whether weights with these metrics should replace the best.

        A loss that is not finite never does, nor does a score that is NaN.
        """
        if not math.isfinite(metrics["loss"]):
            return False
        if self.spec.select_by is SelectBy.LAST:
            return True
        return (self._score(metrics), -metrics["loss"]) >= (self.score, -self.loss)

    def keep(
        self,
        step: int,
        metrics: Mapping[str, float],
        weights: dict[str, Tensor],
        logits: NDArray[np.float32],
    ) -> None:
        """Keep these weights and their validation logits. A tie does not reset patience."""
        score = self._score(metrics)
        self.evaluations_since = 0 if score > self.score else self.evaluations_since + 1
        self.step, self.score, self.loss = step, score, metrics["loss"]
        self.weights, self.logits = weights, logits

    def count_evaluation(self) -> None:
        """Count an evaluation whose weights are not kept, against patience."""
        self.evaluations_since += 1

    def out_of_patience(self) -> bool:
        """Return whether training should stop early."""
        return self.spec.patience is not None and self.evaluations_since >= self.spec.patience

    def state(self) -> BestWeightsState:
        """Return what state.json holds of this object."""
        evaluated = self.logits is not None
        return BestWeightsState(
            step=self.step,
            score=self.score if evaluated else None,
            evaluations_since=self.evaluations_since,
            loss=self.loss if math.isfinite(self.loss) else None,
        )

    def load_state(
        self, state: BestWeightsState, weights: dict[str, Tensor], logits: Tensor | None
    ) -> None:
        """Continue from a saved state."""
        self.step, self.evaluations_since = state.step, state.evaluations_since
        self.score = float("-inf") if state.score is None else state.score
        self.loss = float("inf") if state.loss is None else state.loss
        # Copies, so that nothing keeps the checkpoint file mapped.
        self.weights = {name: tensor.clone() for name, tensor in weights.items()}
        self.logits = None if logits is None else logits.clone().numpy()

    def _score(self, metrics: Mapping[str, float]) -> float:
        if self.spec.select_by is SelectBy.LAST:
            return 0.0  # every evaluation ties with the one before, and ties go to the later step
        value = metrics[self.spec.select_by or SelectBy.MACRO_F1]
        return -value if self.spec.select_by in (SelectBy.LOSS, SelectBy.RMSE) else value
