"""The mean of labels that only some texts have, where a score is known of all of them.

Prediction-powered inference (Angelopoulos et al. 2023, Science 382, 669-674) with the weight of the
scores chosen from the data (PPI++, Angelopoulos, Duchi and Zrnic 2023, arXiv 2311.01453): scores
that say nothing get the weight 0. The labeled texts must be a random sample of all.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MeanEstimate:
    """A mean with its interval, and beside it the interval without scores."""

    value: float
    low: float
    high: float
    texts: int  # with a label
    weight: float  # of the scores, 0 to 1
    plain_value: float
    plain_low: float
    plain_high: float


def mean_estimate(
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
        confidence: of the interval.
    """
    y, score, others = (
        np.asarray(each, dtype=np.float64) for each in (labeled_y, labeled_score, unlabeled_score)
    )
    n = len(y)
    if n < 2 or len(score) != n:
        raise ValueError("at least two labeled texts are needed, each with a score")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    weight = _power_tuned_weight(y, score, others) if len(others) > 1 else 0.0
    value, error = float(y.mean()), float(y.std()) / math.sqrt(n)
    plain = _interval(value, error, z, y)
    if weight:
        value += weight * float(others.mean() - score.mean())
        error = math.hypot(
            weight * float(others.std()) / math.sqrt(len(others)),
            float((y - weight * score).std()) / math.sqrt(n),
        )
    low, high = _interval(value, error, z, y)
    return MeanEstimate(value, low, high, n, weight, float(y.mean()), *plain)


def _power_tuned_weight(y: Floats, score: Floats, others: Floats) -> float:
    """Return the weight with the smallest variance, within 0 and 1."""
    covariance = ((y - y.mean()) * (score - score.mean())).mean()
    variance = float(np.concatenate([score, others]).var(ddof=1))
    if variance == 0:
        return 0.0
    return float(np.clip(covariance / (1 + len(y) / len(others)) / variance, 0.0, 1.0))


def _interval(value: float, error: float, z: float, y: NDArray[Any]) -> tuple[float, float]:  # noqa: ARG001
    return value - z * error, value + z * error
