"""Attention one text at a time, which saves its probabilities: for bf16 on a CPU.

The fused kernel of torch recomputes the scores in the backward pass and pads every text of a batch
to the longest. With heads as small as 32, that is most of its time in bf16. Here each text is cut
to about its own length, its probabilities are saved, and each product is one call for all heads:

P = softmax(s Q Kᵀ)    O = P V
dV = Pᵀ dO    dS = P ∘ (dP - rowsum(P ∘ dP)),  dP = dO Vᵀ    dQ = s dS K    dK = s dSᵀ Q

Where it is faster was measured by `python -m benchmarks.attention` (docs/decisions/0015).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lora_core.data.batching import padded_length
from lora_core.encoders import local_attention

ATTENTION_NAME = "loraworks_unfused"
LENGTH_STEP = 16  # tokens: lengths are padded to multiples of it
MAX_PROBABILITY_BYTES = (
    2**26
)  # of the probabilities of one layer; a larger batch uses the fused kernel


# Texts of more windows are cut into chunks, where the fused kernel is faster: 139 ms against 201 at
# 1,024 tokens with a window of 64, but 138 against 96 at 512 (one AMD core).
MAX_LOCAL_WINDOWS = 12


def is_faster(device: str, precision: str) -> bool:
    """Return whether this is faster for training: it is in bf16 on a CPU, and slower in fp32."""
    return device == "cpu" and precision == "bf16"


def pad_multiple(device: str, precision: str) -> int:
    """Return the number of tokens that batches should be padded to a multiple of."""
    return LENGTH_STEP if is_faster(device, precision) else 1


def patch(model: PreTrainedModel) -> None:
    """Let every unmodified attention of this model use `attention_forward`."""
    model.set_attn_implementation(ATTENTION_NAME)


def _is_supported(query: Tensor, dropout: float) -> bool:
    """Return whether to use this implementation: for training on a CPU, without dropout."""
    batch, heads, length, _ = query.shape
    size = batch * heads * length**2 * query.element_size()  # bytes
    trains = torch.is_grad_enabled() and query.device.type == "cpu" and dropout == 0
    return trains and size <= MAX_PROBABILITY_BYTES


def attention_forward(  # noqa: PLR0913 - the signature of transformers
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    window: int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Q, K, V (batch, heads, length, size) -> (batch, length, heads, size), as in transformers.

    The mask (batch, 1, ·, length) may only hide the end of a text. With a `window`, query i sees
    key j if |i - j| <= window.
    """
    device = query.device.type
    if torch.is_autocast_enabled(device):  # it does not cast for calls with `out=`
        dtype = torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    is_long = window is not None and query.shape[2] > MAX_LOCAL_WINDOWS * window
    in_mask = rest.get("sliding_window") is not None  # the window, by transformers' own blocks
    if is_long or in_mask or key.shape != query.shape or not _is_supported(query, dropout):
        if window is not None:
            return local_attention.attention_forward(
                module, query, key, value, attention_mask, dropout=dropout, window=window
            )
        fused: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
        return fused
    batch, _, length, size = query.shape
    lengths = [length] * batch
    if attention_mask is not None:
        lengths = attention_mask[:, 0, 0].sum(dim=-1).tolist()
    scale = size**-0.5 if scaling is None else scaling
    far = None
    if window is not None and length > window + 1:
        far = ~local_attention.visible_keys(length, length, window, None, query.device)[0, 0]
    y = _UnfusedAttention.apply(query, key, value, lengths, scale, far)  # type: ignore[no-untyped-call]
    return y, None


class _UnfusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        lengths: Sequence[int],
        scale: float,
        far: Tensor | None,  # (length, length), true where a query does not see a key
    ) -> Tensor:
        widths = [min(padded_length(n, LENGTH_STEP), query.shape[2]) for n in lengths]
        out = _zeros_token_major(query)
        probabilities = query.new_empty(query.shape[1] * sum(w * w for w in widths))
        for i, (n, p) in enumerate(
            zip(lengths, _probability_views(probabilities, widths), strict=True)
        ):
            q, k, v, y = (t[i, :, : widths[i]] for t in (query, key, value, out))
            torch.baddbmm(p, q, k.transpose(1, 2), beta=0, alpha=scale, out=p)
            p[:, :, n:] = -torch.inf
            if far is not None:
                p.masked_fill_(far[: widths[i], : widths[i]], -torch.inf)
                p.diagonal(dim1=1, dim2=2)[:, n:] = 0.0  # padding sees itself
            torch.softmax(p, dim=-1, out=p)
            torch.bmm(p, v, out=y)
        ctx.save_for_backward(query, key, value, probabilities)
        ctx.widths, ctx.scale = widths, scale
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, dy_rows: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, probabilities = ctx.saved_tensors
        dy_all = dy_rows.transpose(1, 2)
        dq_all, dk_all, dv_all = (_zeros_token_major(query) for _ in range(3))
        scratch = probabilities.new_empty(query.shape[1] * max(ctx.widths) ** 2)
        for i, p in enumerate(_probability_views(probabilities, ctx.widths)):
            q, k, v, dy = (t[i, :, : ctx.widths[i]] for t in (query, key, value, dy_all))
            dq, dk, dv = (t[i, :, : ctx.widths[i]] for t in (dq_all, dk_all, dv_all))
            ds = scratch[: p.numel()].view_as(p)
            torch.bmm(p.transpose(1, 2), dy, out=dv)
            torch.bmm(dy, v.transpose(1, 2), out=ds)
            torch._softmax_backward_data(ds, p, -1, p.dtype, grad_input=ds)
            torch.baddbmm(dq, ds, k, beta=0, alpha=ctx.scale, out=dq)
            torch.baddbmm(dk, ds.transpose(1, 2), q, beta=0, alpha=ctx.scale, out=dk)
        return dq_all, dk_all, dv_all, None, None, None


def _probability_views(probabilities: Tensor, widths: Sequence[int]) -> Iterator[Tensor]:
    """Yield views of one buffer: the probabilities (heads, width, width) of each text."""
    heads = probabilities.numel() // sum(w * w for w in widths)
    pieces = torch.split(probabilities, [heads * w * w for w in widths])
    for piece, w in zip(pieces, widths, strict=True):
        yield piece.view(heads, w, w)


def _zeros_token_major(heads: Tensor) -> Tensor:
    """Return zeros (batch, heads, length, size), in memory (batch, length, heads, size)."""
    batch, count, length, size = heads.shape
    return heads.new_zeros((batch, length, count, size)).transpose(1, 2)


AttentionInterface.register(ATTENTION_NAME, attention_forward)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
