"""Predicted against true numbers as an inline SVG: both axes have the same scale."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from app.web.formats import intcomma, number

MAX_TICKS = 6


@dataclass(frozen=True)
class ScatterTick:
    """A tick of both axes, in units of the viewBox."""

    x: float
    y: float
    label: str


@dataclass(frozen=True)
class ScatterPlot:
    """Points and ticks in units of the viewBox, 440 by 440."""

    left: ClassVar[int] = 64
    right: ClassVar[int] = 428
    top: ClassVar[int] = 20
    bottom: ClassVar[int] = 384

    points: list[tuple[float, float]]
    ticks: list[ScatterTick]
    description: str

    @classmethod
    def from_points(cls, points: Sequence[tuple[float, float]]) -> "ScatterPlot":
        """Draw (true, predicted) numbers, at least one."""
        numbers = [value for point in points for value in point]
        low, high = min(numbers), max(numbers)
        span = (high - low) or 1.0

        def x(value: float) -> float:
            return round(cls.left + (value - low) / span * (cls.right - cls.left), 1)

        def y(value: float) -> float:
            return round(cls.bottom - (value - low) / span * (cls.bottom - cls.top), 1)

        return cls(
            [(x(true), y(predicted)) for true, predicted in points],
            [ScatterTick(x(value), y(value), number(value)) for value in _ticks(low, high)],
            f"Predicted against true numbers of {intcomma(len(points))} texts, "
            f"from {number(low)} to {number(high)}",
        )


def _ticks(low: float, high: float) -> list[float]:
    """Return at most `MAX_TICKS` round numbers from `low` to `high`: multiples of 1, 2 or 5."""
    if low == high:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / MAX_TICKS))
    steps = (factor * power for factor in (1, 2, 5, 10, 20))
    step = next(each for each in steps if (high - low) / each < MAX_TICKS)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [tick * step for tick in range(first, last + 1)]
