"""A curve in one line of text."""

from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*#@"  # for terminals that know no Unicode


def sparkline(values: Sequence[float], width: int, *, unicode: bool = True) -> str:
    """`values` from the lowest sign to the highest; more than `width` of them are averaged."""
    if not values:
        return ""
    points = _averaged(values, width) if len(values) > width else list(values)
    low, high = min(points), max(points)
    signs = BLOCKS if unicode else ASCII
    if high == low:
        return signs[len(signs) // 2] * len(points)
    scale = (len(signs) - 1) / (high - low)
    return "".join(signs[round((point - low) * scale)] for point in points)


def _averaged(values: Sequence[float], width: int) -> list[float]:
    edges = [len(values) * i // width for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
