"""Summarizes the cells: one JSON object and a table."""

from typing import Any

from benchmarks.columns import aligned
from benchmarks.results_file import ResultsFile
from benchmarks.scale.plan import CELLS, MOST_POST_RATIO, MOST_WRITE_MS


def summary(results: ResultsFile) -> dict[str, Any]:
    """The worse number of both databases, whether the limits are met, and all numbers of each."""
    found = {cell: results.metrics(cell) for cell in CELLS}
    newest = max(results.cells.values(), key=lambda each: str(each["date"]))

    def worst(name: str) -> float:
        return float(max(metrics[name] for metrics in found.values()))

    worse = {
        "post_ratio_100k": worst("post_ratio"),
        "longest_write_ms": worst("longest_write_ms"),
        "claim_ms_p50": worst("claim_ms_p50"),
        "list_ms_p50": worst("list_ms_p50"),
        "gc_seconds": worst("gc_seconds"),
    }
    met = worse["post_ratio_100k"] <= MOST_POST_RATIO and worse["longest_write_ms"] <= MOST_WRITE_MS
    return {
        **worse,
        "met": met,
        **found,
        "processor": newest["processor"],
        "versions": newest["versions"],
        "date": newest["date"],
    }


def table(report: dict[str, Any]) -> str:
    """A line for each number, with its limit."""
    bounds = {"post_ratio": f"<= {MOST_POST_RATIO:g}", "longest_write_ms": f"<= {MOST_WRITE_MS:g}"}
    lines = (
        [name, *(str(report[cell][name]) for cell in CELLS), bounds.get(name, "")]
        for name in report[CELLS[0]]
    )
    return aligned([["", *CELLS, "bound"], *lines])
