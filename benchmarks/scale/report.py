"""From the cells to the figures that are told: one JSON object, and a table."""

from typing import Any

from benchmarks.columns import aligned
from benchmarks.kept import Kept
from benchmarks.scale.plan import CELLS, MOST_POST_RATIO, MOST_WRITE_MS


def summary(results: Kept) -> dict[str, Any]:
    """Of both databases the worse figure, whether the bounds are met, and all of each."""
    found = {cell: results.figures(cell) for cell in CELLS}
    newest = max(results.cells.values(), key=lambda each: str(each["date"]))

    def worst(name: str) -> float:
        return float(max(figures[name] for figures in found.values()))

    told = {
        "post_ratio_100k": worst("post_ratio"),
        "longest_write_ms": worst("longest_write_ms"),
        "claim_ms_p50": worst("claim_ms_p50"),
        "list_ms_p50": worst("list_ms_p50"),
        "gc_seconds": worst("gc_seconds"),
    }
    met = told["post_ratio_100k"] <= MOST_POST_RATIO and told["longest_write_ms"] <= MOST_WRITE_MS
    return {
        **told,
        "met": met,
        **found,
        "processor": newest["processor"],
        "versions": newest["versions"],
        "date": newest["date"],
    }


def table(told: dict[str, Any]) -> str:
    """A line for each figure, with the bounds."""
    bounds = {"post_ratio": f"<= {MOST_POST_RATIO:g}", "longest_write_ms": f"<= {MOST_WRITE_MS:g}"}
    lines = (
        [name, *(str(told[cell][name]) for cell in CELLS), bounds.get(name, "")]
        for name in told[CELLS[0]]
    )
    return aligned([["", *CELLS, "bound"], *lines])
