"""AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with warm-up and decay."""

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
    """AdamW over the trained parameters. Weight decay spares vectors.

    `head` names the layers of the head, in groups of their own if they have another rate.
    """
    head_rate = spec.head_learning_rate or rate
    apart = tuple(f"{name}." for name in head) if head_rate != rate else ()
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[name.startswith(apart), parameter.ndim < 2].append(parameter)
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


def build_schedule(optimizer: torch.optim.Optimizer, spec: OptimSpec, total_steps: int) -> LambdaLR:
    """Linear warm-up to the full rate, then decay; 0 would come after the last step."""
    warmup = math.ceil(spec.warmup * total_steps)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(1, total_steps - warmup)
        match spec.decay:
            case "linear":
                return 1 - done
            case "cosine":
                return (1 + math.cos(math.pi * done)) / 2
            case "none":
                return 1.0

    return LambdaLR(optimizer, factor)
