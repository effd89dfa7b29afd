"""Thresholds of a single-label task, against a search over all of them."""

import itertools
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from sklearn.metrics import f1_score

from lora_core.inference.decoding import decode_label_scores
from lora_core.tasks.base import Calibration
from lora_core.tasks.single_label import MIN_POSITIVES, SingleLabel, tune_thresholds
from tests.slow import slow_but

LABELS = ("common", "usual", "rare")


def texts(
    seed: int, labels: int = 3, count: int = 300
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits that follow the targets, but favor the common label."""
    random = np.random.default_rng(seed)
    targets = random.choice(labels, size=count, p=[0.7, 0.22, 0.08] if labels == 3 else [0.9, 0.1])
    logits = random.normal(size=(count, labels)) + 1.5 * np.eye(labels)[targets]
    logits[:, 0] += 1.0
    return logits, targets


def macro_f1(logits: NDArray[np.float64], targets: NDArray[np.int64], thresholds: object) -> float:
    predicted = (log_softmax(logits, axis=1) - np.log(np.asarray(thresholds))).argmax(axis=1)
    return float(f1_score(targets, predicted, average="macro"))


@pytest.mark.parametrize("seed", slow_but(range(5), 0))
def test_threshold_of_two_labels_is_the_best_of_all(seed: int) -> None:
    logits, targets = texts(seed, labels=2)
    first, second = tune_thresholds(log_softmax(logits, axis=1), targets)
    assert first + second == pytest.approx(1.0)
    scores = softmax(logits, axis=1)[:, 1]
    every = np.unique(scores)
    best = max(f1_score(targets, scores >= cut, average="macro") for cut in every)
    assert f1_score(targets, scores > second, average="macro") == pytest.approx(best)


@pytest.mark.slow  # tries 625 pairs of thresholds
@pytest.mark.parametrize("seed", slow_but(range(3), 0))
def test_thresholds_of_three_labels_are_nearly_the_best(seed: int) -> None:
    logits, targets = texts(seed)
    found = macro_f1(logits, targets, tune_thresholds(log_softmax(logits, axis=1), targets))
    assert found > macro_f1(logits, targets, [1 / 3] * 3)
    grid = np.exp(np.linspace(-3, 3, 25))
    best = max(macro_f1(logits, targets, [1.0, a, b]) for a, b in itertools.product(grid, grid))
    assert found > best - 0.01


@pytest.mark.parametrize("seed", slow_but(range(3), 0))
def test_no_threshold_of_a_label_alone_is_better(seed: int) -> None:
    """With ties, and a label that no text has."""
    random = np.random.default_rng(seed)
    targets = random.integers(4, size=120)
    logits = (random.normal(size=(120, 5)) + np.eye(5)[targets]).round(1)
    scores = log_softmax(logits, axis=1)
    thresholds = tune_thresholds(scores, targets)
    found = macro_f1(logits, targets, thresholds)
    for label, step in itertools.product(range(4), np.linspace(-4, 4, 81)):
        changed = thresholds * np.exp(step * np.eye(5)[label])
        assert macro_f1(logits, targets, changed) <= found + 1e-9


def test_many_labels_are_tuned_within_seconds() -> None:
    """Every evaluation of a run tunes them anew."""
    random = np.random.default_rng(0)
    targets = random.integers(80, size=2000)
    logits = random.normal(size=(2000, 80)) + 2 * np.eye(80)[targets]
    before = time.process_time()
    thresholds = tune_thresholds(log_softmax(logits, axis=1), targets)
    assert time.process_time() - before < 12
    assert macro_f1(logits, targets, thresholds) > macro_f1(logits, targets, [1 / 80] * 80)


def test_labels_of_few_texts_keep_their_thresholds() -> None:
    targets = np.repeat(np.arange(3), MIN_POSITIVES - 1)
    logits = np.random.default_rng(0).normal(size=(len(targets), 3))
    assert tune_thresholds(log_softmax(logits, axis=1), targets) == pytest.approx(1 / 3)


def test_predictions_reports_and_answers_follow_the_thresholds() -> None:
    task = SingleLabel(LABELS, tune_thresholds=True)
    logits, targets = texts(7)
    calibration = task.calibrate(logits, targets)
    assert sum(calibration.thresholds) == pytest.approx(1.0)
    predicted = task.predict(logits, calibration)
    assert (predicted != logits.argmax(axis=1)).any()
    report = task.report(logits, targets, calibration)
    assert report["macro_f1"] == pytest.approx(f1_score(targets, predicted, average="macro"))
    assert report["macro_f1"] > SingleLabel(LABELS).report(logits, targets)["macro_f1"]
    assert task.report(logits, targets)["macro_f1"] == report["macro_f1"]  # thresholds of its own
    answers = decode_label_scores(logits, task, calibration)
    assert [row[0][0] for row in answers] == [LABELS[i] for i in predicted]
    scores = softmax(logits / (calibration.temperature or 1.0), axis=1)
    assert dict(answers[0]) == pytest.approx(dict(zip(LABELS, scores[0], strict=True)))
    wrong = task.mispredictions(logits, targets, calibration)
    assert {each.text_index for each in wrong} == set(np.flatnonzero(predicted != targets))


def test_too_few_texts_change_no_prediction() -> None:
    task = SingleLabel(LABELS, tune_thresholds=True)
    logits, targets = texts(0, count=50)
    calibration = task.calibrate(logits, targets)
    assert calibration.thresholds == pytest.approx((1 / 3,) * 3)
    assert (task.predict(logits, calibration) == logits.argmax(axis=1)).all()


def test_without_the_option_there_are_no_thresholds() -> None:
    logits, targets = texts(0)
    assert SingleLabel(LABELS).calibrate(logits, targets).thresholds == ()
    assert "thresholds" not in Calibration().model_dump()
