"""Cast frozen weights to the autocast type once.

Autocast casts a frozen weight each time it is used. Here the cast copy is made once. The weight
itself is unchanged, for everything that is computed in float32.
"""

from collections.abc import Iterable
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_core.layers.base import AdapterLinear


def patch_frozen_linears(blocks: Iterable[nn.Module], dtype: torch.dtype) -> None:
    """Let every frozen linear layer in these blocks use a cast copy of its weight under autocast.

    The base layers of adapters are left out: their weights change when they are folded or merged.
    """
    modules = [*chain.from_iterable(block.modules() for block in blocks)]
    adapted = {module.base for module in modules if isinstance(module, AdapterLinear)}
    for layer in modules:
        if isinstance(layer, nn.Linear) and layer not in adapted and _is_frozen(layer):
            bias = None if layer.bias is None else layer.bias.to(dtype)
            # Only `forward` is replaced, so that parameters keep their names.
            layer.forward = partial(_linear_forward, layer, layer.weight.to(dtype), bias)  # type: ignore[method-assign]


def _is_frozen(layer: nn.Linear) -> bool:
    return not any(parameter.requires_grad for parameter in layer.parameters())


def _linear_forward(layer: nn.Linear, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    if torch.is_autocast_enabled(x.device.type):
        return F.linear(x, weight, bias)
    return F.linear(x, layer.weight, layer.bias)
