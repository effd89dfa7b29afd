"""How sure a share is, and a difference of two: 95 % intervals that hold for few texts too."""

import math
from statistics import NormalDist

Interval = tuple[float, float]
Z = NormalDist().inv_cdf(0.975)


def wilson(share: float, texts: float) -> Interval:
    """Of a share of so many texts (Wilson 1927, Journal of the American Statistical Association 22,
    209-212): all that a score test would not reject.
    """
    doubt = Z**2 / texts
    center = (share + doubt / 2) / (1 + doubt)
    margin = math.sqrt(doubt * share * (1 - share) + doubt**2 / 4) / (1 + doubt)
    return max(0.0, center - margin), min(1.0, center + margin)


def paired(only_a: float, only_b: float, texts: float) -> Interval:
    """Of the accuracy of `a` less that of `b`, each alone right in so many of the texts: "Wald+2"
    (Agresti and Min 2005, Statistics in Medicine 24, 729-740).

    Half a text is added to each of the four cells of the table, so that there is an interval where
    nothing differs too, and its true coverage stays near 95 % with few texts.
    """
    shifted = (only_a - only_b) / (texts + 2)
    variance = (only_a + only_b + 1) / (texts + 2) - shifted**2
    margin = Z * math.sqrt(variance / (texts + 2))
    return max(-1.0, shifted - margin), min(1.0, shifted + margin)
