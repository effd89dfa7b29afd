"""LoRA with the adapter folded into the weight for the time of one product.

y = x (W + s B A)ᵀ + b    with x (tokens, d_in), W (d_out, d_in), A (r, d_in), B (d_out, r)

The same function as x Wᵀ + b + s (x Aᵀ) Bᵀ, with one product of full size forward and one backward,
and no sum of full size. With G = s · dY B, of shape (tokens, r):

dX = dY (W + s B A)    dA = Gᵀ x    dB = s · dYᵀ (x Aᵀ)

dYᵀ x, the dear part of full fine-tuning, is never formed. (Cherniuk et al. 2023, arXiv 2312.03415)
Kept for the backward pass: W + s B A, d_out · d_in numbers a layer. Not for DoRA, whose row scale
depends on B A too.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_core.layers.base import AdapterLinear
from lora_core.layers.lora import LoraLinear

TOKENS_PER_RANK = 16


def pays(layer: AdapterLinear, x: Tensor) -> bool:
    """Whether folding is the faster way: it costs about what r tokens do, so it needs many more.

    Never with dropout, which the base's share of the product must not see.
    """
    if layer.applies_dropout:
        return False
    return x.numel() // x.shape[-1] >= TOKENS_PER_RANK * layer.r


def use(model: nn.Module) -> None:
    """Let every LoRA layer of the model fold where that is faster; DoRA computes something else."""
    for layer in model.modules():
        if isinstance(layer, LoraLinear) and type(layer).adapted is LoraLinear.adapted:
            layer.adapted = partial(_adapted, layer)  # type: ignore[method-assign]


def _adapted(layer: LoraLinear, x: Tensor) -> Tensor:
    return folded(layer, x) if pays(layer, x) else LoraLinear.adapted(layer, x)


def folded(layer: AdapterLinear, x: Tensor) -> Tensor:
    """x (…, d_in) -> (…, d_out), with gradients for x, A and B.

    Computed in autocast's type where that is on. The base counts as frozen.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    base = layer.base
    with torch.autocast(device, enabled=False):
        y: Tensor = _Folded.apply(  # type: ignore[no-untyped-call]
            x.to(dtype), base.weight, base.bias, layer.A, layer.B, layer.scale
        )
    return y


class _Folded(torch.autograd.Function):
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
        whole = torch.addmm(weight, B, A, alpha=scale).to(x.dtype)  # W + s B A
        ctx.save_for_backward(x, whole, A, B)
        ctx.scale = scale
        return F.linear(x, whole, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, whole, A, B = ctx.saved_tensors
        rows, dy_rows = x.flatten(0, -2), dy.flatten(0, -2)
        dx = dy @ whole if ctx.needs_input_grad[0] else None
        dA = None
        if ctx.needs_input_grad[3]:
            dA = ((dy_rows @ (ctx.scale * B).to(x.dtype)).t() @ rows).to(A.dtype)
        dB = ctx.scale * (dy_rows.t() @ (rows @ A.t().to(x.dtype))).to(B.dtype)
        return dx, None, None, dA, dB, None
