"""Is a new model better than the current one? A one-sided paired test on the same texts.

If both models were equally good in the sense that it is chance which of the two gave which of the
two predictions for a text, exchanging them text by text changes nothing. The p value is the share
of such exchanges with at least the difference that was found. For accuracy it is computed exactly:
only texts matter that one model alone gets right, and half of them would be the new one's
(McNemar's exact test, a sign test). For other metrics it is a permutation test.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_core.tasks.primary_metric import MetricFromMeans, Statistics

PERMUTATIONS = 4999
PERMUTATIONS_AT_ONCE = 250


@dataclass(frozen=True)
class PairedTestResult:
    """Whether a new model is better than the current one on the same texts."""

    p_value: float  # one-sided, of a lead of the new model
    p_worse: float  # the same of a deficit
    difference: float  # of the metric; positive: the new model is better
    texts: int
    better: int  # texts that the new model predicts better
    worse: int


def one_sided_paired_test(
    metric: MetricFromMeans, new: Statistics, current: Statistics, seed: int = 0
) -> PairedTestResult:
    """Return the test of two models by the statistics (texts, k) of their predictions.

    They are what `metric.per_text_statistics` returns for the predictions of each. Raises
    `ValueError` if there are no texts, or not the same number of both.
    """
    if new.shape != current.shape or not len(new):
        raise ValueError("both models need predictions for the same texts")
    sign = -1.0 if metric.lower_is_better else 1.0
    difference = sign * (metric.value(new) - metric.value(current))
    # Together, so that both are linearized at the same point: equal statistics have equal scores.
    scores = np.split(metric.scores(np.concatenate([new, current])), 2)
    better, worse = int((scores[0] > scores[1]).sum()), int((scores[0] < scores[1]).sum())
    if metric.name == "accuracy":
        p_values = one_sided_sign_test(better, worse), one_sided_sign_test(worse, better)
    else:
        p_values = _permutation_test(metric, new, current, sign, seed)
    return PairedTestResult(*p_values, difference, len(new), better, worse)


def one_sided_sign_test(better: int, worse: int) -> float:
    """Return P(at least `better` heads) of better + worse tosses of a fair coin."""
    from scipy.stats import binom  # slow to import, and not needed to read a result

    return float(binom.sf(better - 1, better + worse, 0.5))


def _permutation_test(
    metric: MetricFromMeans, new: Statistics, current: Statistics, sign: float, seed: int
) -> tuple[float, float]:
    """Return the p values of a lead of the new model, and of a deficit."""
    rng, texts = np.random.default_rng(seed), len(new)
    change: NDArray[np.float64] = current.astype(np.float64) - new
    means = new.mean(axis=0), current.mean(axis=0)
    values = [float(metric.value_from_means(each)) for each in means]
    found, tolerance = sign * (values[0] - values[1]), metric.rounding_error(max(values))
    as_large = as_small = 0
    left = PERMUTATIONS
    while left:
        count = min(left, PERMUTATIONS_AT_ONCE)
        exchanged = rng.integers(0, 2, size=(count, texts)).astype(np.float64)
        shift: NDArray[Any] = exchanged @ change / texts
        differences = sign * (
            metric.value_from_means(means[0] + shift) - metric.value_from_means(means[1] - shift)
        )
        as_large += int((differences >= found - tolerance).sum())
        as_small += int((differences <= found + tolerance).sum())
        left -= count
    return (as_large + 1) / (PERMUTATIONS + 1), (as_small + 1) / (PERMUTATIONS + 1)
