"""95% confidence intervals of a proportion, and of a difference of two, that hold for small n."""

import math
from statistics import NormalDist

Interval = tuple[float, float]
Z_95 = NormalDist().inv_cdf(0.975)


def wilson_interval(proportion: float, n: float, z: float = Z_95) -> Interval:
    """Return the Wilson score interval of a proportion of n texts, by default of 95%.

    (Wilson 1927, Journal of the American Statistical Association 22, 209-212.)
    """
    z2_n = z**2 / n
    center = (proportion + z2_n / 2) / (1 + z2_n)
    margin = math.sqrt(z2_n * proportion * (1 - proportion) + z2_n**2 / 4) / (1 + z2_n)
    return max(0.0, center - margin), min(1.0, center + margin)


def paired_accuracy_difference_interval(only_a: float, only_b: float, n: float) -> Interval:
    """Return the "Wald+2" interval of the accuracy of model a minus that of model b on n texts.

    `only_a` texts are predicted correctly by a alone, `only_b` by b alone. Half a text is added to
    each of the four cells of the table, so that the interval is not empty where nothing differs,
    and its true coverage stays near 95% for few texts.

    (Agresti and Min 2005, Statistics in Medicine 24, 729-740.)
    """
    shifted = (only_a - only_b) / (n + 2)
    variance = (only_a + only_b + 1) / (n + 2) - shifted**2
    margin = Z_95 * math.sqrt(variance / (n + 2))
    return max(-1.0, shifted - margin), min(1.0, shifted + margin)
