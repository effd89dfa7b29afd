"""Attention one text at a time against torch's fused kernel: `python -m benchmarks.attention`.

Forward and backward over micro-batches of texts of equal length, each way in turn: fused, ours with
its probabilities kept (unfused), and ours on the native engine, where that was built and in bf16.
Where ours is the faster decides `lora_core.fast.unfused_attention.is_faster`. Ends with one JSON
object: dtype → way → tokens of a text → how many times faster than the fused kernel it is.
"""

import argparse
import json
from collections.abc import Callable
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.benchmark import Timer

from benchmarks import machine
from lora_core.fast import unfused_attention
from lora_core.fast.native.library import Library, best_library
from lora_core.process_settings import retain_freed_memory
from lora_core.specs.train import OptimSpec

HEADS, SIZE = 12, 32  # of the packaged base
LENGTHS = (32, 64, 128, 192, 275, 400, 512)
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
TURNS = 3


def ways(length: int, dtype: torch.dtype) -> dict[str, tuple[Library | None, Callable[[], object]]]:
    """Way → the native engine, if it takes that, and forward and backward on the same numbers."""
    texts = OptimSpec().micro_batch_tokens // length
    q, k, v, dy = (
        torch.randn(texts, length, HEADS, SIZE).to(dtype).transpose(1, 2) for _ in range(4)
    )
    leaves = [each.requires_grad_() for each in (q, k, v)]

    def fused() -> object:
        return torch.autograd.grad(F.scaled_dot_product_attention(q, k, v), leaves, dy)

    def ours() -> object:
        y, _ = unfused_attention.attention_forward(nn.Identity(), q, k, v, None)
        return torch.autograd.grad(y.transpose(1, 2), leaves, dy)

    found: dict[str, Any] = {"fused": (None, fused), "unfused": (None, ours)}
    if dtype is torch.bfloat16 and (library := best_library()) is not None:
        found["native"] = (library, ours)
    return found


def gains(length: int, dtype: torch.dtype, seconds: float) -> dict[str, float]:
    """Way → how many times faster than the fused kernel it is: the median of turns about."""
    pairs = ways(length, dtype)
    took: dict[str, list[float]] = {name: [] for name in pairs}
    for _ in range(TURNS):
        for name, (library, way) in pairs.items():
            timer = Timer("way()", globals={"way": way}, num_threads=torch.get_num_threads())
            with patch.object(unfused_attention, "best_library", lambda found=library: found):
                took[name].append(timer.blocked_autorange(min_run_time=seconds).median)
    fused = took.pop("fused")
    return {
        name: median(a / b for a, b in zip(fused, own, strict=True)) for name, own in took.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each way and turn")
    arguments = parser.parse_args()
    retain_freed_memory()
    found: dict[str, Any] = {}
    for name, dtype in TYPES.items():
        for length in LENGTHS:
            for way, gain in gains(length, dtype, arguments.seconds).items():
                found.setdefault(name, {}).setdefault(way, {})[length] = round(gain, 2)
                print(f"{name} {way:7} {length:4} tokens {gain:5.2f}x", flush=True)
    print(json.dumps({**found, "processor": machine.processor()}))


if __name__ == "__main__":
    main()
