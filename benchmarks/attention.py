"""Attention with its probabilities kept against the fused kernel: `python -m benchmarks.attention`.

Forward and backward over micro-batches of texts of equal length, each way in turn. Where ours is
the faster decides `lora_core.fast.unfused_attention.is_faster`. Ends with one JSON object: dtype →
tokens of a text → how many times faster ours is.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.benchmark import Timer

from benchmarks import machine
from lora_core.fast import unfused_attention
from lora_core.process_settings import retain_freed_memory
from lora_core.specs.train import OptimSpec

HEADS, SIZE = 12, 32  # of the packaged base
LENGTHS = (32, 64, 128, 192, 275, 400, 512)
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
TURNS = 3


def ways(length: int, dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """The fused one and ours, forward and backward, on the same numbers."""
    texts = OptimSpec().micro_batch_tokens // length
    q, k, v, dy = (
        torch.randn(texts, length, HEADS, SIZE).to(dtype).transpose(1, 2) for _ in range(4)
    )
    leaves = [each.requires_grad_() for each in (q, k, v)]

    def fused() -> Tensor:
        return F.scaled_dot_product_attention(q, k, v)

    def ours() -> Tensor:
        return unfused_attention.attention_forward(nn.Identity(), q, k, v, None)[0].transpose(1, 2)

    for way in (fused, ours):
        yield lambda way=way: torch.autograd.grad(way(), leaves, dy)


def gain(length: int, dtype: torch.dtype, seconds: float) -> float:
    """How many times faster ours is: the median of turns about."""
    pair = [
        Timer("way()", globals={"way": way}, num_threads=torch.get_num_threads())
        for way in ways(length, dtype)
    ]
    took = [
        [timer.blocked_autorange(min_run_time=seconds).median for timer in pair]
        for _ in range(TURNS)
    ]
    return median(fused / ours for fused, ours in took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each way and turn")
    arguments = parser.parse_args()
    retain_freed_memory()
    gains: dict[str, Any] = {}
    for name, dtype in TYPES.items():
        gains[name] = {}
        for length in LENGTHS:
            gains[name][length] = round(gain(length, dtype, arguments.seconds), 2)
            print(f"{name} {length:4} tokens {gains[name][length]:5.2f}x", flush=True)
    print(json.dumps({**gains, "processor": machine.processor()}))


if __name__ == "__main__":
    main()
