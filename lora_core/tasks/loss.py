"""The loss of each task, in torch."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from lora_core.specs.task import ClassWeights, LossName, SeveralTargetsSpec, TaskSpec
from lora_core.tasks.base import Task
from lora_core.tasks.multi_label import MultiLabel
from lora_core.tasks.regression import Regression
from lora_core.tasks.several_targets import SeveralTargets
from lora_core.tasks.single_label import SingleLabel
from lora_core.tasks.targets import Targets

FOCAL_GAMMA = 2.0  # the best one in the paper
_MIN_ERROR = 1e-6


class Loss(ABC):
    """A sum over texts, divided by the `normalizer` of all texts of an update."""

    def share(self, logits: Tensor, targets: Tensor, normalizer: Any) -> Tensor:
        """Return what these texts add to the mean loss of an update with this normalizer."""
        share: Tensor = self(logits, targets) / normalizer
        return share

    @abstractmethod
    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the summed loss in float32 of logits (batch, outputs) and their targets."""

    def normalizer(self, targets: Targets) -> Any:
        """Return the divisor of a summed loss: the number or the total weight of the texts."""
        return float(len(targets))


class CrossEntropy(Loss):
    """Softmax cross-entropy, wᵢ ℓᵢ with the weight of the class.

    Of ranks, the target is softmax(-d²) over all labels, with d the distance to the true rank
    (soft labels for ordinal regression, Díaz & Marathe 2019): it peaks at the true rank with 0.56
    and more, and a wrong rank nearby costs less than a distant one.
    """

    def __init__(
        self,
        class_weights: Tensor | None,
        ordered_labels: int | None = None,
        focal_gamma: float | None = None,
    ) -> None:
        """`class_weights` (classes,); `ordered_labels`: the number of ranks, if labels are."""
        self.class_weights, self.focal_gamma = class_weights, focal_gamma
        self.soft_targets: Tensor | None = None  # (classes, classes), by true label
        if ordered_labels is not None:
            ranks = torch.arange(ordered_labels, dtype=torch.float32)
            self.soft_targets = torch.softmax(-((ranks[:, None] - ranks) ** 2), dim=1)

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        device = logits.device
        weights = None if self.class_weights is None else self.class_weights.to(device)
        if self.focal_gamma is not None:
            losses = F.cross_entropy(logits.float(), targets, reduction="none")
            losses = losses * focal_factor(losses, self.focal_gamma)
            return losses.sum() if weights is None else (losses * weights[targets]).sum()
        if self.soft_targets is None:
            return F.cross_entropy(logits.float(), targets, weight=weights, reduction="sum")
        soft = self.soft_targets.to(device)[targets]
        losses = F.cross_entropy(logits.float(), soft, reduction="none")
        return losses.sum() if weights is None else (losses * weights[targets]).sum()

    def normalizer(self, targets: Targets) -> float:
        if self.class_weights is None:
            return float(len(targets))
        return float(self.class_weights[targets.tolist()].sum())


class BinaryCrossEntropy(Loss):
    """Sigmoid cross-entropy, the mean over labels."""

    def __init__(self, positive_weights: Tensor | None, focal_gamma: float | None = None) -> None:
        """`positive_weights` (labels,): of the term of the texts that have a label."""
        self.positive_weights, self.focal_gamma = positive_weights, focal_gamma

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        weights = self.positive_weights
        if self.focal_gamma is not None:
            each = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
            each = each * focal_factor(each, self.focal_gamma)
            if weights is not None:
                each = each * torch.where(targets > 0, weights.to(logits.device), 1.0)
            return each.sum() / logits.shape[1]
        losses = F.binary_cross_entropy_with_logits(
            logits.float(),
            targets,
            pos_weight=None if weights is None else weights.to(logits.device),
            reduction="sum",
        )
        return losses / logits.shape[1]


class SquaredError(Loss):
    """The squared error of the standardized number."""

    def __init__(self, mean: float, std: float) -> None:
        self.mean, self.std = mean, std

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        standardized = (targets - self.mean) / self.std
        return F.mse_loss(logits.float()[:, 0], standardized, reduction="sum")


class WeightedSumOfTargetLosses(Loss):
    """The losses of several targets, times their weights. Each has its own normalizer."""

    def __init__(self, task: SeveralTargets, losses: Mapping[str, Loss]) -> None:
        self.task, self.losses = task, losses

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.share(logits, targets, dict.fromkeys(self.losses, 1.0))

    def share(self, logits: Tensor, targets: Tensor, normalizer: Mapping[str, float]) -> Tensor:
        shares = [
            self.task.weights[name]
            * loss.share(
                logits[:, self.task.outputs[name]],
                self._targets_of(targets, name),
                normalizer[name],
            )
            for name, loss in self.losses.items()
        ]
        return torch.stack(shares).sum()

    def normalizer(self, targets: Targets) -> dict[str, float]:
        return {
            name: loss.normalizer(self.task.values_of(targets, name))
            for name, loss in self.losses.items()
        }

    def _targets_of(self, targets: Tensor, name: str) -> Tensor:
        columns = targets[:, self.task.columns_of[name]]
        match self.task.tasks[name].type:
            case "single_label":
                return columns[:, 0].long()
            case "regression":
                return columns[:, 0]
            case _:
                return columns


def focal_factor(cross_entropy: Tensor, gamma: float) -> Tensor:
    """Return (1 - p)^gamma for -ln p: what is easy counts less (Lin et al. 2017, equation 4).

    1 - p is at least `_MIN_ERROR`, so that its gradient is finite with gamma < 1.
    """
    return (-torch.expm1(-cross_entropy)).clamp_min(_MIN_ERROR) ** gamma


def build_loss(spec: TaskSpec, task: Task, targets: Targets) -> Loss:
    """Return the loss of a task. `targets`: of the training texts, for balanced weights."""
    balanced = getattr(spec, "class_weights", ClassWeights.NONE) is ClassWeights.BALANCED
    gamma = None
    if getattr(spec, "loss", None) is LossName.FOCAL:
        gamma = getattr(spec, "focal_gamma", None) or FOCAL_GAMMA
    match task:
        case SingleLabel():
            counts = torch.from_numpy(np.bincount(targets, minlength=len(task.labels))).float()
            weights = counts.sum() / (len(counts) * counts) if balanced else None
            return CrossEntropy(weights, len(task.labels) if task.ordered else None, gamma)
        case MultiLabel():
            positives = torch.from_numpy(targets.sum(axis=0)).float()
            # without any positive, as in a fold, an infinite weight times 0 would not be a number
            weights = (len(targets) - positives) / positives.clamp_min(1) if balanced else None
            return BinaryCrossEntropy(weights, gamma)
        case Regression():
            return SquaredError(task.mean, task.std)
        case SeveralTargets() if isinstance(spec, SeveralTargetsSpec):
            losses = {
                name: build_loss(target, task.tasks[name], task.values_of(targets, name))
                for name, target in spec.targets.items()
            }
            return WeightedSumOfTargetLosses(task, losses)
        case _:
            raise TypeError(f"no loss for {type(task).__name__}")
