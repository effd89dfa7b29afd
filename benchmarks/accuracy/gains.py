"""Summarizes the tried changes: what each gains on validation."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.accuracy.changes import DEFAULTS
from benchmarks.accuracy.contenders import Cell
from benchmarks.columns import aligned
from benchmarks.results_file import ResultsFile
from benchmarks.spread import Spread, bits


def summary(cells: Iterable[Cell], results: ResultsFile) -> dict[str, Any]:
    """Of these computed cells: dataset → change → accuracy and gain.

    A gain is over those seeds that were tried both with and without the change.
    """
    answers: dict[str, dict[str, dict[int | None, str]]] = defaultdict(lambda: {DEFAULTS: {}})
    for cell in cells:
        correct = results.metrics(cell.name)["correct"]
        answers[cell.data].setdefault(cell.contender, {})[cell.seed] = correct
    return {
        data: {
            name: _metrics(found[DEFAULTS], correct)
            for name, correct in found.items()
            if found[DEFAULTS].keys() & correct.keys()
        }
        for data, found in answers.items()
    }


def _metrics(before: dict[int | None, str], after: dict[int | None, str]) -> dict[str, float]:
    both = [seed for seed in after if seed in before]
    changed = bits([after[seed] for seed in both])
    gain = Spread(changed - bits([before[seed] for seed in both]))
    return {
        "seeds": len(both),
        "accuracy": round(float(changed.mean()), 4),
        "gain": round(gain.mean, 4),
        "gain_se": round(gain.error, 4),
    }


def table(report: dict[str, Any]) -> str:
    """A line for each change on each dataset, in percent."""
    lines: list[Sequence[str]] = [("", "seeds", "validation", "gain", "se")]
    for data, changes in report.items():
        for name, metrics in changes.items():
            line = [f"{data} {name}", str(metrics["seeds"]), f"{100 * metrics['accuracy']:.1f}"]
            if name != DEFAULTS:
                line += [f"{100 * metrics['gain']:+.1f}", f"{100 * metrics['gain_se']:.1f}"]
            lines.append(line)
    return aligned(lines)
