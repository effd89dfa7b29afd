"""Metrics, calibration and thresholds of multi-label tasks against scikit-learn."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    hamming_loss,
    log_loss,
    precision_recall_fscore_support,
)

from lora_core.tasks.base import Calibration
from lora_core.tasks.multi_label import MultiLabel, best_threshold, fit_platt
from lora_core.tasks.several_targets import SeveralTargets

LABELS = ["late", "broken", "refund", "praise"]
GENERATOR = np.random.default_rng(0)
TRUE = (GENERATOR.random((200, 4)) < [0.5, 0.3, 0.2, 0.05]).astype(np.float32)
LOGITS = (3 * TRUE - 2 + GENERATOR.normal(size=TRUE.shape)).astype(np.float32)
PLAIN = Calibration(scale=(1.0,) * 4, offset=(0.0,) * 4, thresholds=(0.5,) * 4)


def test_metrics_match_scikit_learn() -> None:
    report = MultiLabel(LABELS).report(LOGITS, TRUE, PLAIN)
    predicted, truth = LOGITS >= 0, TRUE > 0
    assert report["accuracy"] == pytest.approx(accuracy_score(truth, predicted))
    assert report["micro_f1"] == pytest.approx(f1_score(truth, predicted, average="micro"))
    assert report["macro_f1"] == pytest.approx(f1_score(truth, predicted, average="macro"))
    assert report["map"] == pytest.approx(average_precision_score(truth, expit(LOGITS)))
    assert report["hamming_loss"] == pytest.approx(hamming_loss(truth, predicted))
    losses = [log_loss(truth[:, i], expit(LOGITS[:, i].astype(float))) for i in range(4)]
    assert report["loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    precision, recall, f1, support = precision_recall_fscore_support(truth, predicted)
    for i, label in enumerate(LABELS):
        assert report["per_class"][label] == pytest.approx(
            {
                "precision": precision[i],
                "recall": recall[i],
                "f1": f1[i],
                "support": support[i],
                "threshold": 0.5,
            }
        )


def test_labels_without_a_positive_do_not_count_for_map_and_macro_f1() -> None:
    truth, logits = TRUE.copy(), LOGITS.copy()
    truth[:, 3], logits[:, 3] = 0, -5
    report = MultiLabel(LABELS).report(logits, truth, PLAIN)
    occurring = average_precision_score(truth[:, :3], expit(logits[:, :3]))
    assert report["map"] == pytest.approx(occurring)
    assert report["macro_f1"] == pytest.approx(
        f1_score(truth[:, :3], logits[:, :3] >= 0, average="macro")
    )


def test_text_without_labels_is_right_if_none_is_predicted() -> None:
    logits = np.array([[-3.0, -3.0], [-3.0, 3.0]], dtype=np.float32)
    calibration = Calibration(scale=(1.0, 1.0), offset=(0.0, 0.0), thresholds=(0.5, 0.5))
    task = MultiLabel(["a", "b"])
    targets = task.targets([(), (0,)])
    assert task.report(logits, targets, calibration)["accuracy"] == 0.5
    assert task.report(logits, task.targets([(), ()]), calibration)["micro_f1"] == 0.0


def test_nonfinite_logits_give_a_nonfinite_loss() -> None:
    logits = LOGITS.copy()
    logits[3, 1] = np.nan
    assert np.isnan(MultiLabel(LABELS).compute_logged_metrics(logits, TRUE)["loss"])


def test_thresholds_maximize_f1_of_each_label() -> None:
    for label in range(3):
        scores, truth = expit(LOGITS[:, label].astype(float)), TRUE[:, label]
        found = f1_score(truth, scores >= best_threshold(scores, truth))
        grid = [f1_score(truth, scores >= cut, zero_division=0.0) for cut in np.unique(scores)]
        assert found == pytest.approx(max(grid))


def test_threshold_of_equal_f1_is_the_one_nearest_to_a_half() -> None:
    scores = np.array([0.1, 0.2, 0.8, 0.9])
    assert best_threshold(scores, np.array([0, 0, 1, 1])) == pytest.approx(0.5)


def test_calibration_recovers_the_scale_and_the_offset_of_each_label() -> None:
    generator = np.random.default_rng(1)
    z = generator.normal(scale=2, size=(4000, 2)).astype(np.float32)
    true_scale, true_offset = np.array([0.5, 1.5]), np.array([-1.0, 0.7])
    truth = (generator.random(z.shape) < expit(true_scale * z + true_offset)).astype(np.float32)
    task = MultiLabel(["a", "b"])
    calibration = task.calibrate(z, truth)
    assert calibration.fitted
    assert calibration.scale == pytest.approx(true_scale, rel=0.1)
    assert calibration.offset == pytest.approx(true_offset, abs=0.1)
    compared = task.evaluate_calibration(z, truth, calibration)
    assert compared["after"]["loss"] < compared["before"]["loss"]
    assert compared["after"]["brier"] < compared["before"]["brier"]


def test_rare_label_and_few_texts_are_not_calibrated() -> None:
    calibration = MultiLabel(LABELS).calibrate(LOGITS, TRUE)
    positives = TRUE.sum(axis=0)
    assert positives[3] < 10 <= positives[2]
    assert (calibration.scale[3], calibration.offset[3], calibration.thresholds[3]) == (1, 0, 0.5)
    assert calibration.scale[0] != 1
    few = MultiLabel(LABELS).calibrate(LOGITS[:99], TRUE[:99])
    assert not few.fitted
    assert few.thresholds == (0.5,) * 4


def test_scale_is_never_negative() -> None:
    scale, _ = fit_platt(LOGITS[:, 0].astype(float), 1 - TRUE[:, 0])
    assert scale == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("z", "scale"),
    [
        (0.001 * LOGITS[:, 0] - 5, 20.0),  # of small spread, as of a strongly regularized model
        (5 - LOGITS[:, 0], 0.05),
    ],
)
def test_offset_fits_a_scale_at_its_limit(z: NDArray[np.float32], scale: float) -> None:
    exact = z.astype(float)
    found, offset = fit_platt(exact, TRUE[:, 0])
    assert found == pytest.approx(scale)
    assert expit(found * exact + offset).mean() == pytest.approx(TRUE[:, 0].mean(), abs=1e-6)


def test_model_that_ignores_the_texts_has_no_skill_for_labels_that_do_not_occur() -> None:
    truth = TRUE.copy()
    truth[:, 2:] = 0
    task = SeveralTargets({"topics": MultiLabel(LABELS)}, {"topics": 1.0})
    always = np.repeat([[1.0, 1.0, 0.0, 0.0]], len(truth), axis=0)
    assert task.metric.value(task.metric.per_text_statistics(truth, always)) == pytest.approx(0)


def test_one_label_is_a_task_too() -> None:
    task, random = MultiLabel(("urgent",)), np.random.default_rng(0)
    targets = (random.random((200, 1)) < 0.3).astype(np.float32)
    logits = random.normal(size=(200, 1)) + 2 * targets
    report = task.report(logits, targets)
    predicted = task.predict(logits, task.calibrate(logits, targets))
    expected = f1_score(targets[:, 0], predicted[:, 0])
    assert report["macro_f1"] == report["micro_f1"] == pytest.approx(expected)
    assert report["per_class"]["urgent"]["support"] == int(targets.sum())
