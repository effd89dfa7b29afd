"""From the cells to the figures that are told: one JSON object, and a table."""

from typing import Any

from benchmarks.columns import aligned
from benchmarks.kept import Kept
from benchmarks.page.plan import CELLS, TARGETS


def summary(results: Kept) -> dict[str, Any]:
    """Seconds of each cell, and whether the figure that counts keeps its target."""
    newest = max(results.cells.values(), key=lambda each: str(each["date"]))
    return {
        **{cell: _told(cell, results.figures(cell)) for cell in CELLS},
        "processor": newest["processor"],
        "versions": newest["versions"],
        "date": newest["date"],
    }


def _told(cell: str, figures: dict[str, Any]) -> dict[str, Any]:
    name, below = TARGETS[cell]
    return {**figures, "target": f"{name} < {below:g}", "met": figures[name] < below}


def table(told: dict[str, Any]) -> str:
    """A line for each figure; what it is held to stands beside the one that counts."""
    lines = [["", "median", "worst", "target"]]
    for cell in CELLS:
        figures = told[cell]
        for name in (each.removesuffix("_worst") for each in figures if each.endswith("_worst")):
            counts = TARGETS[cell][0].startswith(name)
            verdict = f"{figures['target']}: {'met' if figures['met'] else 'missed'}"
            both = [str(figures[f"{name}_{which}"]) for which in ("median", "worst")]
            lines.append([name, *both, verdict if counts else ""])
    return aligned(lines)
