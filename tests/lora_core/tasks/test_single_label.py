"""Loss and metrics against scikit-learn and the formulas."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, classification_report, f1_score, log_loss

from lora_core.specs.task import ClassWeights, SingleLabelSpec
from lora_core.tasks.loss import CrossEntropy, build_loss
from lora_core.tasks.single_label import SingleLabel
from lora_core.tasks.single_label_metrics import CURVE_METRICS

LABELS = ["bad", "fine", "good"]
GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(size=(50, 3)).astype(np.float32)
TRUE = GENERATOR.integers(0, 3, size=50)


TRAINING_TARGETS = np.repeat([0, 1, 2], [60, 30, 10])


def task() -> SingleLabel:
    return SingleLabel(LABELS)


def loss_of(weights: ClassWeights) -> CrossEntropy:
    loss = build_loss(SingleLabelSpec(class_weights=weights), task(), TRAINING_TARGETS)
    assert isinstance(loss, CrossEntropy)
    return loss


def test_metrics_match_scikit_learn() -> None:
    report = task().report(LOGITS, TRUE)
    theirs = classification_report(
        TRUE, LOGITS.argmax(1), target_names=LABELS, output_dict=True, zero_division=0
    )
    assert report["accuracy"] == pytest.approx(theirs["accuracy"])
    assert report["macro_f1"] == pytest.approx(theirs["macro avg"]["f1-score"])
    balanced = balanced_accuracy_score(TRUE, LOGITS.argmax(1))
    assert report["balanced_accuracy"] == pytest.approx(balanced)
    assert balanced != pytest.approx(report["accuracy"], abs=1e-3)
    assert task().compute_logged_metrics(LOGITS, TRUE) == {
        name: report[name] for name in CURVE_METRICS
    }
    for label in LABELS:
        assert report["per_class"][label]["precision"] == pytest.approx(theirs[label]["precision"])
        assert report["per_class"][label]["recall"] == pytest.approx(theirs[label]["recall"])
        assert report["per_class"][label]["support"] == theirs[label]["support"]
    probabilities = np.exp(LOGITS) / np.exp(LOGITS).sum(1, keepdims=True)
    assert report["loss"] == pytest.approx(log_loss(TRUE, probabilities), rel=1e-5)


def test_confusion_matrix_has_true_labels_as_rows() -> None:
    logits = np.array([[9, 0, 0], [9, 0, 0], [0, 0, 9]], dtype=np.float32)
    report = task().report(logits, np.array([0, 1, 2]))
    assert report["confusion_matrix"] == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([0, 1], 1.0),  # the third class has no text and no prediction
        ([0, 2], 1 / 3),  # predicted once, has no text
        ([0, 0], 1 / 3),  # the second has a text and is never predicted
    ],
)
def test_macro_f1_averages_classes_that_occur(answers: list[int], expected: float) -> None:
    labels = np.array([0, 1])
    logits = 9 * np.eye(3, dtype=np.float32)[answers]
    found = task().report(logits, labels)["macro_f1"]
    assert found == pytest.approx(expected)
    assert found == pytest.approx(f1_score(labels, answers, average="macro", zero_division=0))


def test_balanced_accuracy_averages_recall_of_classes_that_occur() -> None:
    logits = np.array([[9, 0, 0]] * 9 + [[0, 0, 9]], dtype=np.float32)
    report = task().report(logits, np.array([0] * 8 + [1, 1]))
    assert report["accuracy"] == pytest.approx(0.8)
    assert report["balanced_accuracy"] == pytest.approx(0.5)  # 8 of 8 and none of 2


def test_balanced_weights_are_inverse_frequencies() -> None:
    weighted = loss_of(ClassWeights.BALANCED)
    assert weighted.normalizer(np.array([0])) == pytest.approx(100 / (3 * 60))
    assert weighted.normalizer(np.array([2])) == pytest.approx(100 / (3 * 10))
    assert weighted.normalizer(TRAINING_TARGETS) == pytest.approx(100)


@pytest.mark.parametrize("weights", list(ClassWeights))
def test_summed_loss_over_its_weight_matches_torch_mean(weights: ClassWeights) -> None:
    loss = loss_of(weights)
    logits, labels = torch.from_numpy(LOGITS), torch.from_numpy(TRUE)
    mean = torch.nn.functional.cross_entropy(logits, labels, weight=loss.class_weights)
    ours = loss(logits, labels) / loss.normalizer(TRUE)
    torch.testing.assert_close(ours, mean)


def test_agreement_of_ranks_when_all_are_the_same() -> None:
    ranks = SingleLabel(("1", "2", "3"), ordered=True)
    logits = np.tile(np.array([0.0, 2.0, 1.0]), (4, 1))
    report = ranks.report(logits, np.ones(4, dtype=np.int64))
    assert (report["kappa"], report["mae"]) == (0.0, 0.0)
