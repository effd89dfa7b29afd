"""AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with warm-up and decay."""

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from lora_core.specs.train import OptimSpec


def build_optimizer(model: nn.Module, spec: OptimSpec, rate: float) -> torch.optim.AdamW:
    """AdamW over the trained parameters. Weight decay spares vectors."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": spec.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=rate, fused=True)


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
