"""How fast something grows, with an upper bound."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import linregress, t

BATCHES = 12


@dataclass(frozen=True)
class Slope:
    """Growth per unit: the estimate, and the upper bound of its one-sided interval of 95%."""

    estimate: float
    high: float


def fit_slope(x: ArrayLike, y: ArrayLike) -> Slope:
    """Fit a line through the means of 12 batches of successive samples; of fewer, if there are
    fewer than 24 samples.

    Samples a few seconds apart are alike, so that a line through all of them would look far more
    certain than it is. Means of long batches are nearly independent.
    """
    batches = min(BATCHES, np.size(x) // 2)
    columns = (np.array_split(np.asarray(values, dtype=float), batches) for values in (x, y))
    means = [[batch.mean() for batch in column] for column in columns]
    line = linregress(*means)
    margin = t.ppf(0.95, batches - 2) * line.stderr
    return Slope(float(line.slope), float(line.slope + margin))
