"""One cell of the benchmark, in a process of its own; ours never loads torch."""

from typing import Any

from benchmarks.sweep.plan import Size


def run(cell: str, size: Size) -> dict[str, Any]:
    """The figures of a cell named in `plan.CELLS`."""
    whose, _, rest = cell.partition("-")
    if whose == "ours":
        from benchmarks.sweep import ours

        return ours.measure(rest, size)
    from benchmarks.sweep import rival

    side, kind, rank = rest.split("-")
    return rival.measure("tuned" if side == "tuned" else "default", kind, int(rank), size)
