"""One cell of the benchmark, in a process of its own.

Imports stand in the functions: a process loads what its own side needs, since its peak is told.
"""

from typing import Any

from benchmarks.train.plan import Size
from lora_core.process import limit_openmp_spinning, retain_freed_memory


def run(cell: str, size: Size) -> dict[str, Any]:
    """The figures of a cell named in `plan.CELLS`, and the threads it was computed with."""
    figures = _figures(cell, size)
    import torch

    return figures | {"threads": torch.get_num_threads()}


def _figures(cell: str, size: Size) -> dict[str, Any]:
    kind, _, rest = cell.partition("-")
    name, _, side = rest.partition("-")
    if kind == "pair":
        from benchmarks.train import pairs

        return pairs.measure(int(name), size)
    if side in ("default", "tuned"):
        return _rival(kind, name, side, size)
    limit_openmp_spinning()  # as `python -m lora_core train` begins
    retain_freed_memory()
    return _ours(kind, name, size) if side else _machine(kind, size)


def _rival(kind: str, name: str, side: str, size: Size) -> dict[str, Any]:
    from benchmarks.train import rival

    if kind == "accuracy":
        return rival.accuracy(name, size)
    return rival.rate(name, "tuned" if side == "tuned" else "default", size)


def _ours(kind: str, name: str, size: Size) -> dict[str, Any]:
    from benchmarks.train import ours

    if kind == "accuracy":
        return ours.accuracy(name, size)
    return ours.jobs(name, size) if name == "baseline" else ours.rate(name, size)


def _machine(kind: str, size: Size) -> dict[str, Any]:
    if kind == "peak":
        from benchmarks.train import peak

        return peak.measure(size.kernel_seconds * 5)
    from benchmarks.train import parts

    return parts.measure(size)
