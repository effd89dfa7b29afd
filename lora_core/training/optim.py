"""AdamW (Loshchilov & Hutter 2019, arXiv 1711.05101) with warm-up and decay."""

import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from lora_core.specs.method import BaselineSpec, FullSpec, LoraSpec, Variant
from lora_core.specs.train import OptimSpec


def default_rate(method: BaselineSpec | LoraSpec | FullSpec, width: int) -> float:
    """A rate that trains well: LoRA takes ten to twenty times that of full fine-tuning.

    `width` is the hidden size of the base; wider bases take smaller rates. `unscaled` moves its
    weights many times further at the same alpha, so it takes the rate it was made with.
    """
    small = width < 512
    match method:
        case LoraSpec(variant=Variant.UNSCALED):
            return 5e-5
        case LoraSpec():
            return 1.5e-3 if small else 5e-4
        case BaselineSpec(blocks=0):
            return 1e-3
        case _:
            return 1e-4 if small else 5e-5


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
