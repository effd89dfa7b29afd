"""One cell of the benchmark, in its own process.

Imports are in the functions: a process loads only what its side needs, for its peak memory.
"""

from typing import Any

from benchmarks.train.plan import Size
from lora_core.process_settings import limit_openmp_spinning, retain_freed_memory


def run(cell: str, size: Size) -> dict[str, Any]:
    """Metrics of a cell named in `plan.CELLS`, and the threads it was computed with."""
    metrics = _metrics(cell, size)
    import torch

    return metrics | {"threads": torch.get_num_threads()}


def _metrics(cell: str, size: Size) -> dict[str, Any]:
    kind, _, rest = cell.partition("-")
    name, _, side = rest.partition("-")
    if kind == "pair":
        from benchmarks.train import pairs

        return pairs.measure(int(name), size)
    if side in ("default", "tuned"):
        return _competitor(kind, name, side, size)
    limit_openmp_spinning()  # as `python -m lora_core train` begins
    retain_freed_memory()
    return _ours(kind, name, size) if side else _machine(kind, size)


def _competitor(kind: str, name: str, side: str, size: Size) -> dict[str, Any]:
    from benchmarks.train import competitor

    if kind == "accuracy":
        return competitor.accuracy(name, size)
    return competitor.rate(name, "tuned" if side == "tuned" else "default", size)


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
