"""Inline SVG curves: shared scale, gaps, and descriptions."""

from app.jobs.schemas import Curve
from app.web.svg_curves import SvgMetricChart


def curve(split: str, name: str, points: list[tuple[int, float | None]]) -> Curve:
    steps, values = [step for step, _ in points], [value for _, value in points]
    return Curve(
        split=split, name=name, points=len(points), steps=steps, values=values, low=None, high=None
    )


def test_splits_share_a_scale() -> None:
    found = SvgMetricChart.from_curves(
        [
            curve("train", "loss", [(0, 2.0), (50, 1.0), (100, 0.5)]),
            curve("validation", "loss", [(200, 1.25)]),
            curve("train", "accuracy", [(0, 99.0)]),
        ],
        "loss",
    )
    assert found.paths == {
        "train": "M0.0 0.0h0L250.0 200.0L500.0 300.0",
        "validation": "M1000.0 150.0h0",
    }
    assert (
        found.description
        == "training from 2 at step 0 to 0.5 at step 100; validation 1.25 at step 200"
    )


def test_gaps_break_the_line() -> None:
    points = [(1, None), (2, 1.0), (3, None), (4, 0.0)]
    found = SvgMetricChart.from_curves([curve("train", "loss", points)], "loss")
    assert found.paths == {"train": "M500.0 0.0h0M1000.0 300.0h0"}


def test_accuracies_are_percentages() -> None:
    found = SvgMetricChart.from_curves(
        [curve("validation", "accuracy", [(1000, 0.5), (2000, 0.875)])], "accuracy"
    )
    assert found.description == "validation from 50.0% at step 1,000 to 87.5% at step 2,000"


def test_flat_curve() -> None:
    found = SvgMetricChart.from_curves([curve("train", "loss", [(1, 3.0), (2, 3.0)])], "loss")
    assert found.paths == {"train": "M500.0 0.0h0L1000.0 0.0"}


def test_no_finite_values() -> None:
    found = SvgMetricChart.from_curves([curve("train", "loss", [(1, None)])], "loss")
    assert (found.paths, found.description) == ({}, "")
