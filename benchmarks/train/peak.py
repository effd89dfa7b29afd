"""How fast this machine multiplies large matrices."""

from typing import Any

import torch
from torch.utils.benchmark import Timer

from lora_core import runtime
from lora_core.specs.train import RuntimeSpec

SHAPES = ((2048, 384, 1536), (8192, 384, 1536), (2048, 2048, 2048), (4096, 4096, 4096))  # m, k, n


def measure(seconds: float) -> dict[str, Any]:
    """GFLOP/s of the best shape in each precision, and of the precision that ours trains in."""
    machine = runtime.setup_runtime(RuntimeSpec(device="cpu"))
    found = {"fp32": best(torch.float32, seconds)}
    if machine.precision == "bf16":
        found["bf16"] = best(torch.bfloat16, seconds)
    return {"gflops": found[machine.precision], "precision": machine.precision, **found}


def best(dtype: torch.dtype, seconds: float) -> float:
    """The highest of all shapes."""
    return max(gflops(*shape, dtype, seconds) for shape in SHAPES)


def gflops(m: int, k: int, n: int, dtype: torch.dtype, seconds: float) -> float:
    """(m, k) times (k, n): 2mkn operations over the shortest time."""
    a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
    timer = Timer("torch.mm(a, b)", globals={"a": a, "b": b}, num_threads=torch.get_num_threads())
    return 2 * m * k * n / min(timer.blocked_autorange(min_run_time=seconds).times) / 1e9
