"""Inline SVG curves: training curves, and the learning curve by number of labels.

Training curves are placeholders until Plotly draws them, and remain where scripts are off.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.jobs.schemas import Curve
from app.web.formats import capitalized_metric_label, intcomma, metric_value, number, percent
from lora_core.data.more_labels_estimate import (
    ExpectedMetric,
    MoreLabelsEstimate,
    describe_curve_model,
)
from lora_core.tasks.metric_info import METRICS

# Training curves

WIDTH, HEIGHT = 1000, 300  # of the viewBox, which the browser stretches to the chart area
SPLIT_NAMES = {"train": "training"}
_POINT_MARK = "h0"  # a zero-length line: makes a lone point between two gaps visible

Points = list[tuple[int, float | None]]  # step, value


@dataclass(frozen=True)
class SvgMetricChart:
    """One metric by step: an SVG path for each split on a shared scale, and a description."""

    paths: dict[str, str]
    description: str

    @classmethod
    def from_curves(cls, curves: Sequence[Curve], name: str) -> "SvgMetricChart":
        """Draw the metric `name`. Curves without a finite value are left out."""
        points_by_split: dict[str, Points] = {
            curve.split: list(zip(curve.steps, curve.values, strict=True))
            for curve in curves
            if curve.name == name and any(value is not None for value in curve.values)
        }
        values = [
            value for points in points_by_split.values() for _, value in points if value is not None
        ]
        low, high = min(values, default=0.0), max(values, default=0.0)
        last_step = max((points[-1][0] for points in points_by_split.values()), default=0)
        x_scale, y_scale = WIDTH / max(last_step, 1), HEIGHT / ((high - low) or 1)
        format_value = percent if METRICS[name].is_share else number
        return cls(
            {
                split: _svg_path(points, x_scale, y_scale, high)
                for split, points in points_by_split.items()
            },
            "; ".join(
                f"{SPLIT_NAMES.get(split, split)} {_describe(points, format_value)}"
                for split, points in points_by_split.items()
            ),
        )


def _svg_path(points: Points, x_scale: float, y_scale: float, high: float) -> str:
    """Return SVG path data with the origin at the top left. Nonfinite values leave gaps."""
    commands, drawing = [], False
    for step, value in points:
        if value is not None:
            point = f"{step * x_scale:.1f} {(high - value) * y_scale:.1f}"
            commands.append(f"L{point}" if drawing else f"M{point}{_POINT_MARK}")
        drawing = value is not None
    return "".join(commands)


def _describe(points: Points, format_value: Callable[[float], str]) -> str:
    """Describe the first and last point: `from 0.69 at step 1 to 0.31 at step 94`."""
    known = [
        f"{format_value(value)} at step {intcomma(step)}"
        for step, value in points
        if value is not None
    ]
    return known[0] if len(known) == 1 else f"from {known[0]} to {known[-1]}"


# Learning curve: would more labels help?

# The plot area within the 440 x 220 viewBox of learning_curve.html.
LEFT, RIGHT, TOP, BOTTOM = 48, 420, 12, 180
_TICK = 0.05  # of a share: the y axis starts and ends at a multiple of it


@dataclass(frozen=True)
class AxisTick:
    """A tick of an axis, in units of the viewBox."""

    position: float
    label: str


@dataclass(frozen=True)
class LearningCurvePlot:
    """The metric by number of labeled texts, on a logarithmic x axis. Strings are path data."""

    measured: str
    points: list[tuple[float, float]]  # the measured ones
    expected: str
    band: str  # the outline of the range of `expected`
    x_ticks: list[AxisTick]
    y_ticks: list[AxisTick]


@dataclass(frozen=True)
class LearningCurveView:
    """A job's or dataset's learning curve as pages show it.

    `rows` are (texts, value, low, high); low and high are None where the value was measured.
    """

    metric: str
    metric_title: str
    message: str
    basis: str | None
    plot: LearningCurvePlot | None  # None: nothing was measured
    rows: list[tuple[int, float, float | None, float | None]]
    targets: "list[tuple[str, LearningCurveView]]"  # of several targets, by name

    @classmethod
    def from_estimate(
        cls, estimate: MoreLabelsEstimate | Mapping[str, Any] | None
    ) -> "LearningCurveView | None":
        """Return the view, or None if there is no estimate."""
        if estimate is None:
            return None
        return cls._of(MoreLabelsEstimate.model_validate(estimate))

    @classmethod
    def _of(cls, result: MoreLabelsEstimate) -> "LearningCurveView":
        measured = [(each.texts, each.value, None, None) for each in result.measured]
        expected = [(each.texts, each.value, each.low, each.high) for each in result.expected]
        return cls(
            metric=result.metric,
            metric_title=capitalized_metric_label(result.metric),
            message=result.message,
            basis=describe_curve_model(result),
            plot=_plot(result) if result.measured else None,
            rows=[*measured, *expected],
            targets=[(name, cls._of(each)) for name, each in result.targets.items()],
        )


def _plot(result: MoreLabelsEstimate) -> LearningCurvePlot:
    measured = [(each.texts, each.value) for each in result.measured]
    bounds = [value for each in result.expected for value in (each.low, each.high)]
    values = [value for _, value in measured] + bounds
    tick = _TICK if METRICS[result.metric].is_share else _tick(max(values) - min(values))
    low = math.floor(round(min(values) / tick, 6)) * tick
    high = max(math.ceil(round(max(values) / tick, 6)) * tick, low + tick)
    counts = [texts for texts, _ in measured] + [each.texts for each in result.expected]
    log_first, log_last = math.log(min(counts)), math.log(max(counts))

    def x(texts: int) -> float:
        fraction = (math.log(texts) - log_first) / ((log_last - log_first) or 1)
        return round(LEFT + fraction * (RIGHT - LEFT), 1)

    def y(value: float) -> float:
        return round(BOTTOM - (value - low) / (high - low) * (BOTTOM - TOP), 1)

    def polyline(points: list[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{px} {py}" for px, py in points) if points else ""

    def range_at(each: ExpectedMetric) -> tuple[float, float, float]:
        return x(each.texts), y(each.low), y(each.high)

    expected = [(x(each.texts), y(each.value)) for each in result.expected]
    ranges = [range_at(each) for each in result.expected]
    outline = [(px, top) for px, _, top in ranges]
    outline += [(px, bottom) for px, bottom, _ in reversed(ranges)]
    tick_counts = [measured[0][0], *(each.texts for each in result.expected)]
    return LearningCurvePlot(
        measured=polyline([(x(texts), y(value)) for texts, value in measured]),
        points=[(x(texts), y(value)) for texts, value in measured],
        expected=polyline(expected),
        band=polyline(outline) + "Z" if outline else "",
        x_ticks=[
            AxisTick(x(texts), intcomma(texts)) for texts in (tick_counts if expected else counts)
        ],
        y_ticks=[
            AxisTick(y(value), _tick_label(value, result.metric))
            for value in (low, (low + high) / 2, high)
        ],
    )


def _tick(extent: float) -> float:
    """Return 1, 2 or 5 times a power of ten, of which a quarter of the extent has at least one."""
    quarter = extent / 4 or 1.0
    power = 10.0 ** math.floor(math.log10(quarter))
    return power * max(step for step in (1, 2, 5) if step * power <= quarter or step == 1)


def _tick_label(value: float, name: str) -> str:
    return f"{round(100 * value, 1):g}%" if METRICS[name].is_share else metric_value(value, name)
