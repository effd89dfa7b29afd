"""What the stored cells say; `None` where cells are missing."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.columns import aligned
from benchmarks.loop.plan import ACCURACY_SETS, LEVEL, MAIN_SETS, Cell
from benchmarks.results_file import ResultsFile

SMOOTHED = 5  # scores of a curve that are averaged: ± 20 labels
RESAMPLES = 1000  # of projects, for the 80% range of a ratio
Curve = NDArray[np.float64]


def summary(cells: Sequence[Cell], results: ResultsFile) -> dict[str, Any]:
    """The numbers of the benchmark, then each set."""
    found = {cell: results.metrics(cell.name) for cell in cells if cell.name in results.cells}
    labels = {data: labels_to_target(each) for data, each in _projects(found).items()}
    live, suspects, drift, promote, unfamiliar = (
        {cell.data: metrics for cell, metrics in found.items() if cell.what == what}
        for what in ("live", "suspects", "drift", "promote", "unfamiliar")
    )
    service = next((metrics for cell, metrics in found.items() if cell.what == "service"), {})
    points = [
        point
        for cell, metrics in found.items()
        if cell.what == "curve"
        for point in metrics["points"]
    ]
    so_far = [
        each for metrics in found.values() for each in metrics.get("ours", {}).get("so_far", ())
    ]
    return {
        "labels_to_target_ratio": _mean([labels[s]["ratio"] for s in MAIN_SETS if s in labels]),
        "live_accuracy_coverage": _mean(
            [live[data]["coverage"] for data in ACCURACY_SETS if data in live]
        ),
        "ppi_width_ratio": {
            name: _mean([live[s][f"{key}_width"] for s in ACCURACY_SETS if s in live])
            for name, key in (("informative", "powered"), ("useless", "useless"))
        },
        "suspect_precision_at_50": _mean([each["precision"] for each in suspects.values()]),
        "drift_false_alarm_rate": _ratio(drift.values(), "false_alarms", "weeks"),
        "drift_texts_to_alarm": {
            data: _median(each["texts_to_alarm"]) for data, each in drift.items()
        },
        "learning_curve_error": _mean([100 * abs(said - came) for _, said, _, _, came in points]),
        "promote_wrong": _ratio(promote.values(), "promoted_wrong", "retrainings"),
        **{name: service.get(name) for name in ("next_ms_p50", "suggest_s")},
        "level": LEVEL,
        "labels": labels,
        "live": live,
        "so_far_coverage": _mean([low <= truth <= high for _, _, low, high, truth in so_far]),
        "suspects": suspects,
        "learning_curve_held": _mean([low <= came <= high for _, _, low, high, came in points]),
        "promote": promote,
        "unfamiliar": unfamiliar,
        "service": service,
        **results.where(cell.name for cell in found),
    }


def labels_to_target(projects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The labels that our choice needs for the score of random choice at the budget, over those.

    Both curves are means over projects, smoothed alike. A target that is not reached counts as the
    most labels that our choice got. `low` to `high`: the middle 80% of resampled projects.
    """
    budget, step = projects[0]["budget"], projects[0]["step"]
    place, rng = budget // step - 1, np.random.default_rng(0)
    ours, random = (
        np.array([each[side]["scores"] for each in projects]) for side in ("ours", "random")
    )

    def needed(chosen: NDArray[np.int64]) -> tuple[int, bool]:
        target = smooth(random[chosen].mean(axis=0))[place]
        reached = np.flatnonzero(smooth(ours[chosen].mean(axis=0)) >= target)
        places = int(reached[0]) + 1 if len(reached) else ours.shape[1]
        return step * places, bool(len(reached))

    labels, reached = needed(np.arange(len(projects)))
    resampled = [
        needed(rng.integers(len(projects), size=len(projects)))[0] / budget
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(resampled, [0.1, 0.9])
    return {
        "ratio": round(labels / budget, 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "reached": reached,
        "labels": labels,
        "budget": budget,
        "target": round(float(smooth(random.mean(axis=0))[place]), 4),
        "ours_at_budget": round(float(smooth(ours.mean(axis=0))[place]), 4),
        "projects": len(projects),
    }


def smooth(scores: Curve) -> Curve:
    """The mean of each score and its neighbors, as many on both sides."""
    reach = [min(SMOOTHED // 2, i, len(scores) - 1 - i) for i in range(len(scores))]
    return np.array([scores[i - r : i + r + 1].mean() for i, r in enumerate(reach)])


def table(cells: Sequence[Cell], results: ResultsFile) -> str:
    """A line for each set: scores of both choices, and the labels that ours needs."""
    found = {cell: results.metrics(cell.name) for cell in cells if cell.name in results.cells}
    lines = [["", "labels", "random", "ours", "labels needed", "ratio", "80% range"]]
    for data, projects in _projects(found).items():
        one = labels_to_target(projects)
        needed = f"{one['labels']}" if one["reached"] else f"over {one['labels']}"
        scores = [f"{100 * one[key]:.1f}" for key in ("target", "ours_at_budget")]
        ratios = f"{one['ratio']:.2f}", f"{one['low']:.2f} to {one['high']:.2f}"
        lines.append([data, str(one["budget"]), *scores, needed, *ratios])
    return aligned(lines)


def _projects(found: Mapping[Cell, dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    projects: dict[str, list[dict[str, Any]]] = {}
    for cell, metrics in found.items():
        if cell.what == "labels":
            projects.setdefault(cell.data, []).append(metrics)
    return projects


def _mean(values: Sequence[float]) -> float | None:
    return round(float(np.mean(values)), 4) if len(values) else None


def _median(values: Sequence[int | None]) -> float | None:
    """Of values where None is larger than any."""
    middle = np.median([np.inf if each is None else each for each in values])
    return float(middle) if np.isfinite(middle) else None


def _ratio(cells: Any, part: str, whole: str) -> float | None:
    total = sum(each[whole] for each in cells)
    return round(sum(each[part] for each in cells) / total, 4) if total else None
