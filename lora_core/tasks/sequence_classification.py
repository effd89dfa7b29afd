"""Sequence classification: one label per text."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lora_core.specs.train import ClassWeights, SequenceClassificationSpec
from lora_core.tasks.metrics import CURVE_METRICS, classification_report


class SequenceClassification:
    """Cross-entropy over two or more labels."""

    def __init__(
        self, spec: SequenceClassificationSpec, labels: Sequence[str], counts: Sequence[int]
    ) -> None:
        """`counts`: number of training examples per label, for balanced class weights."""
        self.labels = list(labels)
        self.class_weights: Tensor | None = None
        if spec.class_weights is ClassWeights.BALANCED:
            n = torch.tensor(counts, dtype=torch.float32)
            self.class_weights = n.sum() / (len(n) * n)

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the summed softmax cross-entropy in float32.

        Logits are (batch, classes), labels (batch,).
        """
        weights = None if self.class_weights is None else self.class_weights.to(logits.device)
        return F.cross_entropy(logits.float(), labels, weight=weights, reduction="sum")

    def loss_normalizer(self, labels: Sequence[int]) -> float:
        """Return the divisor of a summed loss: the number or the total weight of the examples."""
        if self.class_weights is None:
            return float(len(labels))
        return float(self.class_weights[list(labels)].sum())

    def metrics(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
        """Return the `CURVE_METRICS`, without class weights."""
        report = self.report(logits, labels)
        return {name: report[name] for name in CURVE_METRICS}

    def report(self, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, Any]:
        """Return all metrics of `classification_report`."""
        return classification_report(logits, labels, self.labels)
