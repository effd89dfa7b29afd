"""One cell of the benchmark, in its own process; ours never loads torch."""

from typing import Any

from benchmarks.sweep.plan import Size


def run(cell: str, size: Size) -> dict[str, Any]:
    """Metrics of a cell named in `plan.CELLS`."""
    whose, _, rest = cell.partition("-")
    if whose == "ours":
        from benchmarks.sweep import ours

        return ours.measure(rest, size)
    from benchmarks.sweep import competitor

    side, kind, rank = rest.split("-")
    return competitor.measure("tuned" if side == "tuned" else "default", kind, int(rank), size)
