"""Losses against those of transformers and the formulas of their papers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DistilBertConfig
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from lora_core.specs.task import (
    ClassWeights,
    MultiLabelSpec,
    RegressionSpec,
    SingleLabelSpec,
    TaskSpec,
)
from lora_core.tasks.build import build_task
from lora_core.tasks.loss import CrossEntropy, build_loss
from lora_core.tasks.targets import indicator

LABELS = ("1", "2", "3", "4", "5")
GENERATOR = np.random.default_rng(0)
TEXTS = 40


def loss_of_transformers(problem_type: str, logits: Tensor, targets: Tensor) -> Tensor:
    config = DistilBertConfig(num_labels=logits.shape[1], problem_type=problem_type)
    loss: Tensor = ForSequenceClassificationLoss(targets, logits, config)
    return loss


@pytest.mark.parametrize(
    ("spec", "outputs", "draw"),
    [
        (SingleLabelSpec(), 5, lambda: GENERATOR.integers(0, 5, TEXTS)),
        (MultiLabelSpec(), 5, lambda: (GENERATOR.random((TEXTS, 5)) < 0.3).astype(np.float32)),
        (RegressionSpec(), 1, lambda: GENERATOR.normal(50, 20, TEXTS).astype(np.float32)),
    ],
    ids=["single_label", "multi_label", "regression"],
)
def test_loss_is_that_of_transformers(
    spec: TaskSpec, outputs: int, draw: Callable[[], NDArray[np.float32]]
) -> None:
    targets = draw()
    task = build_task(spec, LABELS, targets.tolist())
    loss = build_loss(spec, task, targets)
    logits = torch.randn(TEXTS, outputs, generator=torch.Generator().manual_seed(0))
    expected_targets = torch.from_numpy(targets)
    if isinstance(spec, RegressionSpec):
        expected_targets = (expected_targets - targets.mean()) / targets.std()
    theirs = loss_of_transformers(task.problem_type, logits, expected_targets)
    ours = loss(logits, torch.from_numpy(targets)) / loss.normalizer(targets)
    torch.testing.assert_close(ours, theirs)


def test_ranks_have_soft_targets_around_the_true_one() -> None:
    spec = SingleLabelSpec(ordered=True)
    targets = np.array([0, 2, 4])
    loss = build_loss(spec, build_task(spec, LABELS, targets.tolist()), targets)
    assert isinstance(loss, CrossEntropy)
    assert loss.soft_targets is not None
    soft = loss.soft_targets.numpy()
    weights = np.exp(-(np.subtract.outer(np.arange(5), np.arange(5)) ** 2.0))
    np.testing.assert_allclose(soft, weights / weights.sum(1, keepdims=True), rtol=1e-6)
    assert soft[2, 2] == pytest.approx(0.56, abs=0.01)
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    mean = torch.nn.functional.cross_entropy(logits, torch.from_numpy(soft[targets]))
    ours = loss(logits, torch.from_numpy(targets)) / loss.normalizer(targets)
    torch.testing.assert_close(ours, mean)


def test_balanced_ranks_weight_the_text_by_its_true_rank() -> None:
    spec = SingleLabelSpec(ordered=True, class_weights=ClassWeights.BALANCED)
    targets = np.array([0] * 3 + [1] * 1)
    loss = build_loss(spec, build_task(spec, LABELS[:2], targets.tolist()), targets)
    plain = build_loss(
        SingleLabelSpec(ordered=True), build_task(spec, LABELS[:2], targets.tolist()), targets
    )
    logits = torch.tensor([[1.0, -1.0]])
    for rank, weight in ((0, 4 / (2 * 3)), (1, 4 / (2 * 1))):
        target = torch.tensor([rank])
        torch.testing.assert_close(loss(logits, target), weight * plain(logits, target))
        assert loss.normalizer(np.array([rank])) == pytest.approx(weight)


def test_balanced_labels_weight_positives_by_the_ratio_of_negatives() -> None:
    spec = MultiLabelSpec(class_weights=ClassWeights.BALANCED)
    targets = indicator([(0,), (0, 1), (0,), ()], 2)
    loss = build_loss(spec, build_task(spec, ("a", "b"), []), targets)
    logits = torch.tensor([[0.3, -0.7]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.tensor([[1.0, 1.0]]), pos_weight=torch.tensor([1 / 3, 3.0])
    )
    torch.testing.assert_close(loss(logits, torch.tensor([[1.0, 1.0]])), expected)
