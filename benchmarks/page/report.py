"""Summarizes the cells: one JSON object and a table."""

from typing import Any

from benchmarks.columns import aligned
from benchmarks.page.plan import CELLS, TARGETS
from benchmarks.results_file import ResultsFile


def summary(results: ResultsFile) -> dict[str, Any]:
    """Seconds of each cell, and whether its metric meets the target."""
    return {
        **{cell: _with_target(cell, results.metrics(cell)) for cell in CELLS},
        **results.where(),
    }


def _with_target(cell: str, metrics: dict[str, Any]) -> dict[str, Any]:
    name, below = TARGETS[cell]
    return {**metrics, "target": f"{name} < {below:g}", "met": metrics[name] < below}


def table(report: dict[str, Any]) -> str:
    """A line for each number, with the target where there is one."""
    lines = [["", "median", "worst", "target"]]
    for cell in CELLS:
        metrics = report[cell]
        for name in (each.removesuffix("_worst") for each in metrics if each.endswith("_worst")):
            counts = TARGETS[cell][0].startswith(name)
            verdict = f"{metrics['target']}: {'met' if metrics['met'] else 'missed'}"
            both = [str(metrics[f"{name}_{which}"]) for which in ("median", "worst")]
            lines.append([name, *both, verdict if counts else ""])
    return aligned(lines)
