"""Would more labels help? The answer as a page shows it: a sentence, and a curve with its range."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.web.formats import count
from lora_core.data.more_labels import Expected, MoreLabels, basis_in_words

WIDTH, HEIGHT = 440, 220
LEFT, RIGHT, TOP, BOTTOM = 48, 420, 12, 180  # of the box that the curve is drawn in
TICK = 0.05  # of accuracy: the scale begins and ends at multiples of it


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in the units of the drawing."""

    place: float
    title: str


@dataclass(frozen=True)
class Drawing:
    """Accuracy by number of labeled texts, on a logarithmic scale."""

    measured: str  # the path of what was measured
    dots: list[tuple[float, float]]
    expected: str  # the path of the middle of what is expected
    band: str  # the outline of the range
    across: list[Tick]
    up: list[Tick]


@dataclass(frozen=True)
class MoreLabelsView:
    """`rows`: texts, accuracy, low and high; low and high are None where it was measured."""

    message: str
    basis: str | None
    drawing: Drawing | None  # None: nothing was measured
    rows: list[tuple[int, float, float | None, float | None]]

    @classmethod
    def of(cls, found: MoreLabels | Mapping[str, Any] | None) -> "MoreLabelsView | None":
        """None: it is not known."""
        if found is None:
            return None
        answer = MoreLabels.model_validate(found)
        measured = [(each.texts, each.accuracy, None, None) for each in answer.measured]
        expected = [(each.texts, each.accuracy, each.low, each.high) for each in answer.expected]
        drawing = _draw(answer) if answer.measured else None
        return cls(answer.message, basis_in_words(answer), drawing, [*measured, *expected])


def _draw(answer: MoreLabels) -> Drawing:
    known = [(each.texts, each.accuracy) for each in answer.measured]
    bounds = [share for each in answer.expected for share in (each.low, each.high)]
    shares = [share for _, share in known] + bounds
    low = math.floor(round(min(shares) / TICK, 6)) * TICK
    high = max(math.ceil(round(max(shares) / TICK, 6)) * TICK, low + TICK)
    counts = [texts for texts, _ in known] + [each.texts for each in answer.expected]
    first, last = math.log(min(counts)), math.log(max(counts))

    def x(texts: int) -> float:
        share = (math.log(texts) - first) / ((last - first) or 1)
        return round(LEFT + share * (RIGHT - LEFT), 1)

    def y(share: float) -> float:
        return round(BOTTOM - (share - low) / (high - low) * (BOTTOM - TOP), 1)

    def path(points: list[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{across} {up}" for across, up in points) if points else ""

    def ends(each: Expected) -> tuple[float, float, float]:
        return x(each.texts), y(each.low), y(each.high)

    middle = [(x(each.texts), y(each.accuracy)) for each in answer.expected]
    edges = [ends(each) for each in answer.expected]
    outline = [(across, top) for across, _, top in edges]
    outline += [(across, bottom) for across, bottom, _ in reversed(edges)]
    shown = [known[0][0], *(each.texts for each in answer.expected)]
    return Drawing(
        measured=path([(x(texts), y(share)) for texts, share in known]),
        dots=[(x(texts), y(share)) for texts, share in known],
        expected=path(middle),
        band=path(outline) + "Z" if outline else "",
        across=[Tick(x(texts), count(texts)) for texts in (shown if middle else counts)],
        up=[
            Tick(y(share), f"{round(100 * share, 1):g} %")
            for share in (low, (low + high) / 2, high)
        ],
    )
