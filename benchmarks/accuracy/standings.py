"""Summarizes the cells of the table: test accuracies and their differences."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.contenders import CONTENDERS, LINEAR, SEEDS, Cell
from benchmarks.columns import aligned
from benchmarks.results_file import ResultsFile
from benchmarks.spread import Spread, bits

OURS = "lora"


def summary(cells: Iterable[Cell], results: ResultsFile) -> dict[str, Any]:
    """Of these computed cells: dataset → metrics of each contender over all its seeds."""
    by_data: dict[str, dict[str, list[Cell]]] = {}
    for cell in cells:
        by_data.setdefault(cell.data, {}).setdefault(cell.contender, []).append(cell)
    return {data: _metrics(_tables(found, results)) for data, found in by_data.items()}


def _tables(found: dict[str, list[Cell]], results: ResultsFile) -> dict[str, NDArray[np.float64]]:
    """Contender → (seeds, texts)."""
    complete = {
        name: [results.metrics(cell.name) for cell in cells]
        for name, cells in found.items()
        if len(cells) == (1 if name == LINEAR else len(SEEDS))
    }
    data = {each["data"] for metrics in complete.values() for each in metrics}
    assert len(data) <= 1, "the contenders saw other texts"
    return {name: bits([each["correct"] for each in metrics]) for name, metrics in complete.items()}


def _metrics(tables: dict[str, NDArray[np.float64]]) -> dict[str, float]:
    """All between 0 and 1: accuracy, its errors over seeds and over texts, paired differences."""
    metrics: dict[str, float] = {}
    for name, table in tables.items():
        spread = Spread(table)
        metrics |= {
            name: spread.mean,
            f"{name}_se": spread.over_seeds,
            f"{name}_texts_se": spread.over_texts,
        }
    pairs = [(name, LINEAR) for name in CONTENDERS]
    pairs += [(OURS, name) for name in CONTENDERS if name != OURS]
    for one, other in pairs:
        if one in tables and other in tables:
            difference = Spread(tables[one] - tables[other])
            name, (low, high) = f"{one}_minus_{other}", difference.interval()
            metrics |= {name: difference.mean, f"{name}_low": low, f"{name}_high": high}
    return {name: round(value, 4) for name, value in metrics.items()}


def table(report: dict[str, Any]) -> str:
    """A line for each contender on each dataset, in percent."""
    lines: list[Sequence[str]] = [
        ("", "accuracy", "se of seeds", "se of texts", "minus the linear model", "LoRA minus this")
    ]
    for data, metrics in report.items():
        for name in (LINEAR, *CONTENDERS):
            if name in metrics:
                errors = [_percent(metrics[f"{name}_{each}"]) for each in ("se", "texts_se")]
                differences = [
                    _difference(metrics, f"{name}_minus_{LINEAR}"),
                    _difference(metrics, f"{OURS}_minus_{name}"),
                ]
                lines.append((f"{data} {name}", _percent(metrics[name]), *errors, *differences))
    return aligned(lines)


def _difference(metrics: dict[str, float], name: str) -> str:
    """With both ends of its interval; nothing if it was not measured."""
    if name not in metrics:
        return ""
    mean, low, high = (f"{100 * metrics[name + end]:+.1f}" for end in ("", "_low", "_high"))
    return f"{mean} [{low}, {high}]"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"
