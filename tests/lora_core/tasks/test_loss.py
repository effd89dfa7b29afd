"""Losses against those of transformers and the formulas of their papers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.special import expit, softmax
from torch import Tensor
from transformers import DistilBertConfig
from transformers.loss.loss_utils import ForSequenceClassificationLoss

from lora_core.specs.method import ProbeSpec
from lora_core.specs.task import (
    ClassWeights,
    LossName,
    MultiLabelSpec,
    RegressionSpec,
    SingleLabelSpec,
    TaskSpec,
)
from lora_core.specs.train import TrainSpec
from lora_core.tasks.build import build_task
from lora_core.tasks.loss import CrossEntropy, build_loss
from lora_core.tasks.targets import multi_hot

LABELS = ("1", "2", "3", "4", "5")
GENERATOR = np.random.default_rng(0)
TEXTS = 40


def loss_of_transformers(problem_type: str | None, logits: Tensor, targets: Tensor) -> Tensor:
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
    targets = multi_hot([(0,), (0, 1), (0,), ()], 2)
    loss = build_loss(spec, build_task(spec, ("a", "b"), []), targets)
    logits = torch.tensor([[0.3, -0.7]])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.tensor([[1.0, 1.0]]), pos_weight=torch.tensor([1 / 3, 3.0])
    )
    torch.testing.assert_close(loss(logits, torch.tensor([[1.0, 1.0]])), expected)


def test_a_label_without_positives_has_a_finite_balanced_loss() -> None:
    spec = MultiLabelSpec(class_weights=ClassWeights.BALANCED)
    targets = multi_hot([(0,), (), (0,), ()], 2)
    loss = build_loss(spec, build_task(spec, ("a", "b"), []), targets)
    logits = torch.tensor([[0.3, -0.7]] * 4, requires_grad=True)
    scores = expit(np.array([0.3, -0.7]))
    first, second = 2 * -np.log(scores[0]) + 2 * -np.log(1 - scores[0]), 4 * -np.log(1 - scores[1])
    total = loss(logits, torch.from_numpy(targets))
    assert float(total.detach()) == pytest.approx((first + second) / 2, rel=1e-6)
    torch.autograd.backward(total)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("gamma", [0.5, 2.0])
@pytest.mark.parametrize("weights", list(ClassWeights))
def test_focal_loss_of_labels(gamma: float, weights: ClassWeights) -> None:
    spec = SingleLabelSpec(loss=LossName.FOCAL, focal_gamma=gamma, class_weights=weights)
    targets = np.arange(TEXTS) % 7 % 5
    loss = build_loss(spec, build_task(spec, LABELS, targets.tolist()), targets)
    logits = torch.from_numpy(GENERATOR.normal(size=(TEXTS, 5)))
    p = softmax(logits.numpy(), axis=1)[np.arange(TEXTS), targets]
    counts = np.bincount(targets)
    weight = TEXTS / (5 * counts)[targets] if weights is ClassWeights.BALANCED else np.ones(TEXTS)
    expected = (weight * (1 - p) ** gamma * -np.log(p)).sum()
    assert float(loss(logits, torch.from_numpy(targets))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weights", list(ClassWeights))
def test_focal_loss_of_several_labels(weights: ClassWeights) -> None:
    spec = MultiLabelSpec(loss=LossName.FOCAL, class_weights=weights)
    targets = (GENERATOR.random((TEXTS, 5)) < 0.3).astype(np.float32)
    loss = build_loss(spec, build_task(spec, LABELS, []), targets)
    logits = torch.from_numpy(GENERATOR.normal(size=(TEXTS, 5)))
    score = expit(logits.numpy())
    p = np.where(targets > 0, score, 1 - score)
    positive = (TEXTS - targets.sum(axis=0)) / targets.sum(axis=0)
    balanced = weights is ClassWeights.BALANCED
    weight = np.where(targets > 0, positive, 1.0) if balanced else 1.0
    expected = (weight * (1 - p) ** 2 * -np.log(p)).sum() / 5
    assert float(loss(logits, torch.from_numpy(targets))) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_focal_loss_of_a_certain_text_has_a_gradient(gamma: float) -> None:
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    torch.autograd.backward(CrossEntropy(None, focal_gamma=gamma)(logits, torch.tensor([0])))
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0, 0.0]]


def test_options_of_the_focal_loss() -> None:
    with pytest.raises(ValidationError, match="focal_gamma needs loss 'focal'"):
        SingleLabelSpec(focal_gamma=1.0)
    with pytest.raises(ValidationError, match="ordered labels have a loss of their own"):
        SingleLabelSpec(loss=LossName.FOCAL, ordered=True)
    task = {"type": "single_label", "loss": "focal"}
    with pytest.raises(ValidationError, match="probe is fitted with cross-entropy"):
        TrainSpec.model_validate({"method": {"type": "probe"}, "task": task})
    auto = TrainSpec.model_validate({"method": {"type": "auto"}, "task": task})
    assert auto.with_method(ProbeSpec()).task == SingleLabelSpec()
    assert SingleLabelSpec().model_dump(mode="json").keys() == {"type", "class_weights"}
