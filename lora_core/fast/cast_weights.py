"""Frozen weights held in the type they are multiplied in.

Autocast makes a copy of a frozen weight each time it is used. Here it is made once; the weight
itself stays as it is, for all that is computed exactly.
"""

from collections.abc import Iterable
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_core.layers.base import AdapterLinear


def use(blocks: Iterable[nn.Module], dtype: torch.dtype) -> None:
    """Let every frozen linear layer of these use such a copy under autocast.

    Those under an adapter are left out: their weights are folded or merged, and so they change.
    """
    modules = [*chain.from_iterable(block.modules() for block in blocks)]
    adapted = {module.base for module in modules if isinstance(module, AdapterLinear)}
    for layer in modules:
        if isinstance(layer, nn.Linear) and layer not in adapted and _is_frozen(layer):
            bias = None if layer.bias is None else layer.bias.to(dtype)
            # The names in the model stay those of transformers.
            layer.forward = partial(_multiply, layer, layer.weight.to(dtype), bias)  # type: ignore[method-assign]


def _is_frozen(layer: nn.Linear) -> bool:
    return not any(parameter.requires_grad for parameter in layer.parameters())


def _multiply(layer: nn.Linear, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    if torch.is_autocast_enabled(x.device.type):
        return F.linear(x, weight, bias)
    return F.linear(x, layer.weight, layer.bias)
