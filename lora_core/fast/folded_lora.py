"""LoRA with the adapter folded into the weight for one matrix product.

y = x (W + s B A)ᵀ + b    with x (tokens, d_in), W (d_out, d_in), A (r, d_in), B (d_out, r)

This equals x Wᵀ + b + s (x Aᵀ) Bᵀ, with one full-size product forward and one backward, and without
a full-size sum. With G = s · dY B, of shape (tokens, r):

dX = dY (W + s B A)    dA = Gᵀ x    dB = s · dYᵀ (x Aᵀ)

dYᵀ x, the expensive part of full fine-tuning, is never formed (Cherniuk et al. 2023, arXiv
2312.03415). The backward pass needs W + s B A, which takes d_out · d_in numbers per layer. Not for
DoRA, whose row scale depends on B A too.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_core.layers.base import AdapterLinear
from lora_core.layers.lora import LoraLinear

TOKENS_PER_RANK = 16


def is_faster(layer: AdapterLinear, x: Tensor) -> bool:
    """Return whether folding is faster: it costs about as much as r tokens, so it needs many more.

    It is not possible with dropout, which applies to the adapter's input but not to the base's.
    """
    if layer.applies_dropout:
        return False
    return x.numel() // x.shape[-1] >= TOKENS_PER_RANK * layer.r


def patch_lora_layers(model: nn.Module) -> None:
    """Let every LoRA layer except DoRA fold its adapter whenever that is faster."""
    for layer in model.modules():
        if (
            isinstance(layer, LoraLinear)
            and type(layer).forward_with_adapter is LoraLinear.forward_with_adapter
        ):
            layer.forward_with_adapter = partial(_adapted_forward, layer)  # type: ignore[method-assign]


def _adapted_forward(layer: LoraLinear, x: Tensor) -> Tensor:
    return (
        folded_forward(layer, x)
        if is_faster(layer, x)
        else LoraLinear.forward_with_adapter(layer, x)
    )


def folded_forward(layer: AdapterLinear, x: Tensor) -> Tensor:
    """x (…, d_in) -> (…, d_out), with gradients for x, A and B.

    Computed in the autocast type under autocast. The base is treated as frozen.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    base = layer.base
    with torch.autocast(device, enabled=False):
        y: Tensor = _FoldedLinear.apply(  # type: ignore[no-untyped-call]
            x.to(dtype), base.weight, base.bias, layer.A, layer.B, layer.scale
        )
    return y


class _FoldedLinear(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        A: Tensor,
        B: Tensor,
        scale: float,
    ) -> Tensor:
        folded = torch.addmm(weight, B, A, alpha=scale).to(x.dtype)  # W + s B A
        ctx.save_for_backward(x, folded, A, B)
        ctx.scale = scale
        return F.linear(x, folded, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, folded, A, B = ctx.saved_tensors
        rows, dy_rows = x.flatten(0, -2), dy.flatten(0, -2)
        dx = dy @ folded if ctx.needs_input_grad[0] else None
        dA = None
        if ctx.needs_input_grad[3]:
            dA = ((dy_rows @ (ctx.scale * B).to(x.dtype)).t() @ rows).to(A.dtype)
        dB = ctx.scale * (dy_rows.t() @ (rows @ A.t().to(x.dtype))).to(B.dtype)
        return dx, None, None, dA, dB, None
