"""Temperature and calibration error against scikit-learn, the paper's formulas and known truth."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import brier_score_loss, log_loss

from lora_core.errors.training import NonFiniteLogits
from lora_core.inference.decoding import decode_label_scores
from lora_core.tasks.base import Calibration
from lora_core.tasks.single_label import SingleLabel
from lora_core.tasks.temperature_scaling import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    brier_score,
    calibration_error,
    compare_calibration,
    fit_temperature,
)
from tests.slow import slow_but

Floats = NDArray[np.float32]
Whole = NDArray[np.int64]


def answers(texts: int, classes: int, off: float, seed: int = 0) -> tuple[Floats, Whole]:
    """Logits whose labels were drawn from their own probabilities, then multiplied by `off`."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(scale=2.0, size=(texts, classes))
    drawn = generator.random((texts, 1)) < softmax(logits, axis=1).cumsum(axis=1)
    return (logits * off).astype(np.float32), drawn.argmax(axis=1)


@pytest.mark.parametrize("off", slow_but([0.3, 1.0, 4.0], 4.0))
@pytest.mark.parametrize("classes", slow_but([2, 3, 20], 3))
def test_temperature_minimizes_scikit_learn_log_loss_on_a_grid(classes: int, off: float) -> None:
    logits, labels = answers(150, classes, off)
    grid = np.geomspace(MIN_TEMPERATURE, MAX_TEMPERATURE, 301)  # two percent apart

    def loss(temperature: float) -> float:
        scaled = logits.astype(np.float64) / temperature
        return float(log_loss(labels, softmax(scaled, axis=1), labels=range(classes)))

    losses = [loss(temperature) for temperature in grid]
    fitted = fit_temperature(logits, labels)
    assert fitted == pytest.approx(grid[np.argmin(losses)], rel=0.02)
    assert loss(fitted) <= min(losses)


class Echo(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # they have no types
    """Returns the given logits."""

    def fit(self, labels: Whole) -> "Echo":
        self.classes_ = np.unique(labels)
        return self

    def decision_function(self, logits: Floats) -> Floats:
        return logits

    def predict(self, logits: Floats) -> Whole:
        predicted: Whole = logits.argmax(axis=1)
        return predicted


def test_temperature_matches_scikit_learn() -> None:
    logits, labels = answers(400, 3, off=2.5)
    theirs = CalibratedClassifierCV(FrozenEstimator(Echo().fit(labels)), method="temperature")
    theirs.fit(logits, labels)
    ours = softmax(logits / fit_temperature(logits, labels), axis=1)
    np.testing.assert_allclose(ours, theirs.predict_proba(logits), atol=1e-5)


def test_known_temperature_is_recovered_and_unseen_texts_are_calibrated() -> None:
    temperature = fit_temperature(*answers(20_000, 3, off=3.0))
    assert temperature == pytest.approx(3.0, rel=0.03)
    unseen = compare_calibration(*answers(20_000, 3, off=3.0, seed=1), temperature)
    assert unseen["texts"] == 20_000
    assert unseen["before"]["ece"] > 0.1
    assert unseen["after"]["ece"] < 0.015
    for figure in ("loss", "brier"):
        assert unseen["after"][figure] < unseen["before"][figure]


def test_calibration_error_of_a_worked_example() -> None:
    confidence = np.array([0.95, 0.96, 0.62, 0.55])
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    right, wrong = 0, 1
    # The first two share a bin: half are correct at a confidence of 0.955. The others are alone.
    expected = (2 * (0.955 - 0.5) + (1 - 0.62) + 0.55) / 4
    labels = np.array([right, wrong, right, wrong])
    assert calibration_error(probabilities, labels) == pytest.approx(expected)


def test_calibration_error_matches_the_formula_of_the_paper() -> None:
    logits, labels = answers(500, 4, off=2.0)
    probabilities = softmax(logits.astype(np.float64), axis=1)
    confidence, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    expected = 0.0
    for m in range(1, 16):
        inside = (confidence > (m - 1) / 15) & (confidence <= m / 15)
        if inside.any():
            accuracy = (predicted == labels)[inside].mean()
            expected += inside.sum() / 500 * abs(accuracy - confidence[inside].mean())
    assert calibration_error(probabilities, labels) == pytest.approx(expected)


def test_certain_predictions_have_the_smallest_or_largest_error() -> None:
    sure = np.eye(3)
    assert calibration_error(sure, np.arange(3)) == brier_score(sure, np.arange(3)) == 0
    assert calibration_error(sure, np.array([1, 2, 0])) == 1
    assert brier_score(sure, np.array([1, 2, 0])) == 2


@pytest.mark.parametrize("classes", [2, 3])
def test_loss_and_brier_score_match_scikit_learn(classes: int) -> None:
    logits, labels = answers(200, classes, off=2.0)
    metrics = compare_calibration(logits, labels, 1.7)
    for which, temperature in (("before", 1.0), ("after", 1.7)):
        probabilities = softmax(logits.astype(np.float64) / temperature, axis=1)
        brier = brier_score_loss(labels, probabilities, labels=range(classes), scale_by_half=False)
        assert metrics[which]["brier"] == pytest.approx(brier)
        assert metrics[which]["loss"] == pytest.approx(log_loss(labels, probabilities))


SOME_LOGITS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 8), st.integers(2, 5)),
    elements=st.floats(-50, 50, width=32),
)


@given(SOME_LOGITS, st.floats(MIN_TEMPERATURE, MAX_TEMPERATURE))
def test_temperature_does_not_change_predictions(logits: Floats, temperature: float) -> None:
    task = SingleLabel([str(i) for i in range(logits.shape[1])])
    plain = decode_label_scores(torch.from_numpy(logits), task)
    scaled = decode_label_scores(
        torch.from_numpy(logits), task, Calibration(temperature=temperature)
    )
    for row, before, after in zip(logits, plain, scaled, strict=True):
        assert [name for name, _ in after] == [name for name, _ in before]
        assert after[0][0] == str(row.argmax())
        assert sum(score for _, score in after) == pytest.approx(1)
        softer, sharper = (after, before) if temperature > 1 else (before, after)
        assert softer[0][1] <= sharper[0][1] + 1e-12


@given(SOME_LOGITS, st.data())
def test_validation_loss_never_rises(logits: Floats, data: st.DataObject) -> None:
    texts, classes = logits.shape
    labels = data.draw(arrays.arrays(np.int64, texts, elements=st.integers(0, classes - 1)))
    temperature = fit_temperature(logits, labels)
    assert MIN_TEMPERATURE <= temperature <= MAX_TEMPERATURE
    metrics = compare_calibration(logits, labels, temperature)
    assert metrics["after"]["loss"] <= metrics["before"]["loss"] + 1e-12


def test_without_errors_the_temperature_is_one() -> None:
    logits, _ = answers(50, 3, off=1.0)
    assert fit_temperature(logits, logits.argmax(axis=1)) == 1.0
    assert fit_temperature(np.zeros((5, 2), dtype=np.float32), np.array([0, 1, 0, 1, 1])) == 1.0


def test_worse_than_chance_gives_the_maximum_temperature() -> None:
    logits, _ = answers(50, 3, off=1.0)
    assert fit_temperature(logits, logits.argmin(axis=1)) == MAX_TEMPERATURE


def test_underconfident_logits_give_the_minimum_temperature() -> None:
    right, wrong = [[0.001, 0.0]] * 99, [[0.0, 0.001]]
    logits = np.array(right + wrong, dtype=np.float32)
    assert fit_temperature(logits, np.zeros(100, dtype=np.int64)) == MIN_TEMPERATURE


def test_one_class_or_two_texts_can_be_fitted() -> None:
    """By hand: the 1 / T at which the gain of correct predictions equals the loss of the wrong."""
    logits, labels = np.array([[0.0, 3.0], [1.0, 0.0]], dtype=np.float32), np.array([1, 1])
    inverse = 1 / fit_temperature(logits, labels)
    gain, loss = 3 / (1 + np.exp(3 * inverse)), 1 / (1 + np.exp(-inverse))
    assert gain == pytest.approx(loss)


def test_constant_shift_of_logits_changes_nothing() -> None:
    logits, labels = answers(100, 3, off=2.0)
    shifts = np.arange(100, dtype=np.float32)[:, None] * 16
    assert fit_temperature(logits + shifts, labels) == pytest.approx(
        fit_temperature(logits, labels), rel=1e-3
    )


def test_extreme_logits_give_finite_metrics() -> None:
    logits = np.array([[3e38, -3e38], [-3e38, 3e38], [1.0, 0.0]], dtype=np.float32)
    temperature = fit_temperature(logits, np.array([0, 0, 0]))
    metrics = compare_calibration(logits, np.array([0, 0, 0]), temperature)
    assert np.isfinite([*metrics["before"].values(), *metrics["after"].values()]).all()


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_nonfinite_logits_are_refused(odd: float) -> None:
    logits = np.array([[0.0, 1.0], [odd, 0.0], [0.0, 1.0]], dtype=np.float32)
    labels = np.array([1, 1, 1])
    with pytest.raises(NonFiniteLogits, match="1 of 3 held-out texts"):
        fit_temperature(logits, labels)
    with pytest.raises(NonFiniteLogits, match="1 of 3 held-out texts"):
        compare_calibration(logits, labels, 1.0)
