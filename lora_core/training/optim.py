"""AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with warmup and decay."""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from lora_core.specs.train import OptimSpec


def build_optimizer(
    model: nn.Module, spec: OptimSpec, rate: float, head: Sequence[str] = ()
) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters. Weight decay is not applied to vectors.

    `head` names the layers of the head. They get parameter groups of their own if their learning
    rate differs.
    """
    head_rate = spec.head_learning_rate or rate
    head_prefixes = tuple(f"{name}." for name in head) if head_rate != rate else ()
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name.startswith(head_prefixes), parameter.ndim < 2].append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": groups[in_head, is_vector],
                "lr": head_rate if in_head else rate,
                "weight_decay": 0.0 if is_vector else spec.weight_decay,
            }
            for in_head, is_vector in sorted(groups)
        ],
        fused=True,
    )


def build_lr_scheduler(
    optimizer: torch.optim.Optimizer, spec: OptimSpec, total_steps: int
) -> LambdaLR:
    """Return linear warmup to the full rate, then decay to 0 one step after the last."""
    warmup = math.ceil(spec.warmup * total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        decayed = (step - warmup) / max(1, total_steps - warmup)
        match spec.decay:
            case "linear":
                return 1 - decayed
            case "cosine":
                return (1 + math.cos(math.pi * decayed)) / 2
            case "none":
                return 1.0

    return LambdaLR(optimizer, factor)
