"""The mean of labels that only some texts have, where a score of all texts is known.

Prediction-powered inference (Angelopoulos et al. 2023, Science 382, 669-674) with the weight of the
scores chosen from the data (PPI++: Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453), so that
scores that say nothing get almost no weight. The labeled texts must be a random sample of all.

The normal interval of the papers is too narrow for a share near 0 or 1 of few texts: of 60 texts
with an accuracy of 95% it held the truth in 83% of simulations. So labels of 0 and 1 get a Wilson
interval instead, for as many texts as would have the same standard error without scores.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lora_core.confidence_intervals import Interval, wilson_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MeanEstimate:
    """A mean with its interval, and beside it what the labels alone say."""

    value: float
    low: float
    high: float
    texts: int  # with a label
    weight: float  # of the scores, 0 to 1
    standard_error: float  # of the value
    plain_value: float
    plain_low: float
    plain_high: float


def estimate_mean(
    labeled_y: ArrayLike,
    labeled_score: ArrayLike,
    unlabeled_score: ArrayLike,
    confidence: float = 0.95,
) -> MeanEstimate:
    """Return the mean of y over all texts. Raises `ValueError` with fewer than two labels.

    Args:
        labeled_y: (n,) of the labeled texts, such as 1 where the model is right, else 0.
        labeled_score: (n,) what is expected of y, such as the probability of the predicted label.
        unlabeled_score: (N,) the same of the texts without a label; may be empty.
        confidence: of the intervals.
    """
    y, score, others = (
        np.asarray(each, dtype=np.float64) for each in (labeled_y, labeled_score, unlabeled_score)
    )
    n = len(y)
    if n < 2 or len(score) != n:
        raise ValueError("at least two labeled texts are needed, each with a score")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    plain_value, plain_error = float(y.mean()), float(y.std()) / math.sqrt(n)
    weight = _power_tuned_weight(y, score, others) if len(others) else 0.0
    value, error = plain_value, plain_error
    if weight:
        value += weight * float(others.mean() - score.mean())
        error = math.hypot(
            weight * float(others.std()) / math.sqrt(len(others)),
            float((y - weight * score).std()) / math.sqrt(n),
        )
    if np.isin(y, (0.0, 1.0)).all():
        plain = wilson_interval(plain_value, n, z)
        effective_texts = n * (plain_error / error) ** 2 if error else n
        low, high = wilson_interval(min(max(value, 0.0), 1.0), effective_texts, z)
    else:
        plain = _normal_interval(plain_value, plain_error, z)
        low, high = _normal_interval(value, error, z)
    return MeanEstimate(
        value=value,
        low=low,
        high=high,
        texts=n,
        weight=weight,
        standard_error=error,
        plain_value=plain_value,
        plain_low=plain[0],
        plain_high=plain[1],
    )


def _power_tuned_weight(y: Floats, score: Floats, others: Floats) -> float:
    """Return the weight with the smallest variance, within 0 and 1."""
    covariance = float(((y - y.mean()) * (score - score.mean())).mean())
    variance = float(np.concatenate([score, others]).var(ddof=1))
    if variance == 0:
        return 0.0
    return min(max(covariance / (1 + len(y) / len(others)) / variance, 0.0), 1.0)


def _normal_interval(value: float, error: float, z: float) -> Interval:
    return value - z * error, value + z * error
