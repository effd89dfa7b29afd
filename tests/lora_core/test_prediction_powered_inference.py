"""Prediction-powered means: the interval of the reference, and coverage with few texts."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from lora_core.confidence_intervals import wilson_interval
from lora_core.prediction_powered_inference import estimate_mean

RIGHT = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0])
SCORE = np.array([0.9, 0.8, 0.3, 0.95, 0.7, 0.85, 0.6, 0.9, 0.99, 0.75, 0.8, 0.4])
OTHERS = np.linspace(0.2, 1, 40) ** 0.5
NOISE = np.array([0.1, -0.2, 0.05, 0.3, -0.1, 0, 0.2, -0.15, 0.1, 0.05, -0.3, 0.2])


@pytest.mark.parametrize(
    ("y", "score", "confidence", "interval"),
    [  # by `ppi_mean_ci` of ppi-python 0.2.3
        (RIGHT, SCORE, 0.95, (0.6012472126080668, 0.9245358976372051)),
        (SCORE + NOISE, SCORE, 0.9, (0.6882510017047628, 0.8677513543039951)),
        (RIGHT, SCORE[::-1], 0.95, (0.5050045019324932, 0.9949954980675068)),
    ],
)
def test_normal_interval_is_that_of_ppi_python(
    y: NDArray[Any], score: NDArray[Any], confidence: float, interval: tuple[float, float]
) -> None:
    found = estimate_mean(y, score, OTHERS, confidence)
    margin = norm.ppf((1 + confidence) / 2) * found.standard_error
    assert (found.value - margin, found.value + margin) == pytest.approx(interval, abs=1e-9)
    if y is not RIGHT:  # no share: the interval is the normal one
        assert (found.low, found.high) == pytest.approx(interval, abs=1e-9)


def test_share_has_a_wilson_interval_for_its_effective_number_of_texts() -> None:
    found = estimate_mean(RIGHT, SCORE, OTHERS)
    assert (found.plain_low, found.plain_high) == wilson_interval(0.75, 12)
    effective = 0.75 * 0.25 / found.standard_error**2
    assert effective > 12
    assert (found.low, found.high) == pytest.approx(wilson_interval(found.value, effective))


def test_useless_scores_change_nothing() -> None:
    for others in (np.array([]), OTHERS):
        found = estimate_mean(RIGHT, np.full(12, 0.5), others * 0 + 0.5)
        assert found.weight == 0
        assert found.value == found.plain_value
        assert (found.low, found.high) == (found.plain_low, found.plain_high)


def test_constant_labels_have_an_interval() -> None:
    for constant in (0.0, 1.0):
        found = estimate_mean(np.full(30, constant), np.linspace(0.5, 1, 30), OTHERS)
        assert found.value == constant
        assert (found.low, found.high) == wilson_interval(constant, 30)


@pytest.mark.parametrize("informative", [True, False])
@pytest.mark.parametrize("accuracy", [0.75, 0.95])
def test_interval_holds_the_truth(accuracy: float, informative: bool) -> None:
    rng, holds, widths = np.random.default_rng(0), 0, []
    repetitions, n, others = 600, 60, 1500
    for _ in range(repetitions):
        score = rng.beta(6 * accuracy, 6 * (1 - accuracy), n + others)  # the mean is the accuracy
        right = rng.random(n) < (score[:n] if informative else accuracy)
        found = estimate_mean(right, score[:n], score[n:])
        holds += found.low <= accuracy <= found.high
        widths.append((found.high - found.low) / (found.plain_high - found.plain_low))
    assert 0.925 < holds / repetitions < 0.985
    assert np.mean(widths) < (0.99 if informative else 1.01)


def test_too_few_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two labeled texts"):
        estimate_mean([1], [0.5], [0.5])
    with pytest.raises(ValueError, match="each with a score"):
        estimate_mean([1, 0], [0.5], [0.5])
