"""Standard errors and intervals of means over seeds and texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t


def bits(correct: Sequence[str]) -> NDArray[np.float64]:
    """(seeds, texts): 1.0 where the prediction was correct."""
    return np.array([[float(each) for each in line] for line in correct])


@dataclass(frozen=True)
class Spread:
    """Spread of a table (seeds, texts) of correctness, or of the difference of two such tables.

    Both predicted the same texts, so their difference has a smaller error than either of them.
    """

    table: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """An accuracy, or a difference of two."""
        return float(self.table.mean())

    @property
    def over_seeds(self) -> float:
        """Standard error of the mean over seeds, on these texts; 0 with a single one."""
        return _error(self.table.mean(axis=1))

    @property
    def over_texts(self) -> float:
        """Standard error of the mean over texts, with these seeds."""
        return _error(self.table.mean(axis=0))

    @property
    def error(self) -> float:
        """Of other seeds and other texts. What both share is counted twice: a little too wide."""
        return float(np.hypot(self.over_seeds, self.over_texts))

    def interval(self) -> tuple[float, float]:
        """Both ends of the 95% interval, by Student's t with the degrees of freedom of Welch.

        Few seeds that disagree make it wide; where the texts are all that counts it is the mean and
        1.96 errors, the interval of paired proportions (Newcombe 1998, method 1).
        """
        variances = np.array([self.over_seeds, self.over_texts]) ** 2
        if not variances.any():
            return self.mean, self.mean
        freedoms = np.maximum(np.array(self.table.shape) - 1, 1)
        freedom = variances.sum() ** 2 / (variances**2 / freedoms).sum()
        reach = float(t.ppf(0.975, freedom)) * self.error
        return self.mean - reach, self.mean + reach


def _error(means: NDArray[Any]) -> float:
    return float(means.std(ddof=1) / np.sqrt(len(means))) if len(means) > 1 else 0.0
