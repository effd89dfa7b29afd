"""One label per text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lora_core.specs.task import ClassWeights, SequenceClassificationSpec
from lora_core.tasks.metrics import CURVES, report


class SequenceClassification:
    """Cross-entropy over two labels or many."""

    def __init__(
        self, spec: SequenceClassificationSpec, labels: Sequence[str], counts: Sequence[int]
    ) -> None:
        """`counts`: training examples of each label, for balanced class weights."""
        self.labels = list(labels)
        self.class_weights: Tensor | None = None
        if spec.class_weights is ClassWeights.BALANCED:
            n = torch.tensor(counts, dtype=torch.float32)
            self.class_weights = n.sum() / (len(n) * n)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Softmax cross-entropy in float32, summed: logits (batch, classes), labels (batch,)."""
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        return F.cross_entropy(logits.float(), labels, weight=weights, reduction="sum")

    def weight(self, labels: Sequence[int]) -> float:
        """What a summed loss is divided by: the number of examples, or the sum of their weights."""
        if self.class_weights is None:
            return float(len(labels))
        return float(self.class_weights[list(labels)].sum())

    def metrics(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
        """The `CURVES`: unweighted, over the classes of the model."""
        report = self.report(logits, labels)
        return {name: report[name] for name in CURVES}

    def report(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Any]:
        """All figures, as `tasks.report` has them."""
        return report(logits, labels, self.labels)
