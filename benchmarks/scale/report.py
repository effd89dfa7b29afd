"""Summarizes the cells: one JSON object and a table."""

from typing import Any

from benchmarks.columns import aligned
from benchmarks.results_file import ResultsFile
from benchmarks.scale.plan import (
    CELLS,
    MODEL,
    MOST_CORE_SHARE,
    MOST_POST_RATIO,
    MOST_READ_MS,
    MOST_WRITE_MS,
)

# Name in the summary → name in a cell.
SUMMARIZED = {
    "post_ratio_100k": "post_ratio",
    "longest_write_ms": "longest_write_ms",
    "claim_ms_p50": "claim_ms_p50",
    "page_ms": "page_ms_p50",
    "metrics_ms": "metrics_ms_p50",
    "metrics_cold_ms": "metrics_cold_ms",
    "list_ms": "list_ms_p50",
    "streams_200_core_share": "streams_core_share",
    "streams_200_get_ms": "streams_get_ms_p50",
    "gc_seconds": "gc_seconds",
}
BOUNDS = {
    "post_ratio": MOST_POST_RATIO,
    "longest_write_ms": MOST_WRITE_MS,
    "page_ms_p50": MOST_READ_MS,
    "metrics_ms_p50": MOST_READ_MS,
    "list_ms_p50": MOST_READ_MS,
    "streams_core_share": MOST_CORE_SHARE,
    "streams_get_ms_p50": MOST_READ_MS,
}


def summary(results: ResultsFile) -> dict[str, Any]:
    """The worse number of both databases, whether the limits are met, and all numbers of each."""
    found = {cell: results.metrics(cell) for cell in CELLS}

    def worst(name: str) -> float:
        return float(max(metrics[name] for metrics in found.values()))

    return {
        **{
            name: worst(measured)
            for name, measured in SUMMARIZED.items()
            if all(measured in metrics for metrics in found.values())  # older results lack some
        },
        **results.metrics(MODEL),
        "met": all(worst(name) <= bound for name, bound in BOUNDS.items()),
        **found,
        **results.where(),
    }


def table(report: dict[str, Any]) -> str:
    """A line for each number, with its limit."""
    lines = (
        [
            name,
            *(str(report[cell].get(name, "")) for cell in CELLS),
            f"<= {BOUNDS[name]:g}" if name in BOUNDS else "",
        ]
        for name in report[CELLS[0]]
    )
    return aligned([["", *CELLS, "bound"], *lines])
