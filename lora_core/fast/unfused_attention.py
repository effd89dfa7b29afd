"""Attention one text at a time, which saves its probabilities: for bf16 on a CPU.

The fused kernel of torch recomputes the scores in the backward pass and pads every text of a batch
to the longest. With heads as small as 32, that is most of its time in bf16. Here each text is cut
to about its own length, its probabilities are saved, and each product is one call for all heads:

P = softmax(s Q Kᵀ)    O = P V
dV = Pᵀ dO    dS = P ∘ (dP - rowsum(P ∘ dP)),  dP = dO Vᵀ    dQ = s dS K    dK = s dSᵀ Q

Where it is faster was measured by `python -m benchmarks.attention` (docs/decisions/0015).

Where the native engine was built, it computes the same with no probability saved (`native/`), also
in evaluations.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lora_core.data.batching import padded_length
from lora_core.encoders import local_attention
from lora_core.fast.native.attention import SIZE_STEP, NativeAttention
from lora_core.fast.native.library import best_library

ATTENTION_NAME = "loraworks_unfused"
LENGTH_STEP = 16  # tokens: lengths are padded to multiples of it
# Of the probabilities of one layer; a larger batch uses the fused kernel.
MAX_PROBABILITY_BYTES = 2**26


# Of a text with a window, that many windows of queries are computed together: fewer are many small
# products, more compute many scores that are hidden.
WINDOWS_PER_PIECE = 2


def is_faster(device: str, precision: str) -> bool:
    """Return whether this is faster for training: it is in bf16 on a CPU, and slower in fp32."""
    return device == "cpu" and precision == "bf16"


def pad_multiple(device: str, precision: str) -> int:
    """Return the number of tokens that batches should be padded to a multiple of."""
    return LENGTH_STEP if is_faster(device, precision) else 1


def patch_attention(model: PreTrainedModel) -> None:
    """Let every unmodified attention of this model use `attention_forward`."""
    model.set_attn_implementation(ATTENTION_NAME)


def _fits(query: Tensor, window: int | None) -> bool:
    """Return whether the probabilities are few enough to be saved."""
    batch, heads, length, _ = query.shape
    keys = length if window is None else min(length, (WINDOWS_PER_PIECE + 2) * window)
    return batch * heads * length * keys * query.element_size() <= MAX_PROBABILITY_BYTES


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
    key j if |i - j| <= window, and only keys near enough are computed.
    """
    device = query.device.type
    if torch.is_autocast_enabled(device):  # it does not cast for calls with `out=`
        dtype = torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    size = query.shape[-1]
    in_mask = rest.get("sliding_window") is not None  # the window, by transformers' own blocks
    library = best_library() if query.dtype == torch.bfloat16 and size % SIZE_STEP == 0 else None
    takes = library is not None or (torch.is_grad_enabled() and _fits(query, window))
    if in_mask or key.shape != query.shape or device != "cpu" or dropout != 0 or not takes:
        if window is not None:
            return local_attention.attention_forward(
                module, query, key, value, attention_mask, dropout=dropout, window=window
            )
        fused: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
        return fused
    batch, length = query.shape[0], query.shape[2]
    lengths = [length] * batch
    if attention_mask is not None:
        lengths = attention_mask[:, 0, 0].sum(dim=-1).tolist()
    scale = size**-0.5 if scaling is None else scaling
    if library is not None:
        return NativeAttention.apply(  # type: ignore[no-untyped-call]
            query, key, value, lengths, scale, window, library
        ), None
    pieces = [
        piece
        for text, n in enumerate(lengths)
        for piece in _split_text(text, n, min(padded_length(n, LENGTH_STEP), length), window)
    ]
    y = _UnfusedAttention.apply(query, key, value, pieces, scale)  # type: ignore[no-untyped-call]
    return y, None


class _Piece(NamedTuple):
    """Consecutive queries of a text, and the keys that they may see; the end may be padding."""

    text: int
    length: int  # of the text, without padding
    queries: slice
    keys: slice
    window: int | None

    @property
    def shape(self) -> tuple[int, int]:
        """The number of queries, and of keys."""
        return self.queries.stop - self.queries.start, self.keys.stop - self.keys.start

    def hide_(self, scores: Tensor) -> None:
        """Set the scores (heads, queries, keys) of keys that are not seen to -inf."""
        scores[:, :, max(self.length - self.keys.start, 0) :] = -torch.inf
        if self.window is None:
            return
        offset = self.queries.start - self.keys.start
        if max(self.shape[1] - offset, offset + self.shape[0]) > self.window + 1:
            scores.masked_fill_(_far(*self.shape, offset, self.window), -torch.inf)
        padding = max(self.length - self.queries.start, 0)  # sees itself: softmax needs something
        scores.diagonal(offset, dim1=1, dim2=2)[:, padding:] = 0.0


def _split_text(text: int, length: int, width: int, window: int | None) -> Iterator[_Piece]:
    """Yield the pieces of a text of `width` tokens, of which the last ones are padding."""
    if window is None or width <= window + 1:
        yield _Piece(text, length, slice(0, width), slice(0, width), window)
        return
    for start in range(0, width, WINDOWS_PER_PIECE * window):
        end = min(start + WINDOWS_PER_PIECE * window, width)
        keys = slice(max(start - window, 0), min(end + window, width))
        yield _Piece(text, length, slice(start, end), keys, window)


@lru_cache(maxsize=64)  # all but the ends of long texts are the same
def _far(queries: int, keys: int, offset: int, window: int) -> Tensor:
    """Return which keys are too far away (queries, keys): key `offset` is that of query 0."""
    distance = torch.arange(keys) - torch.arange(queries)[:, None] - offset
    return distance.abs() > window


class _UnfusedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: list[_Piece], scale: float
    ) -> Tensor:
        out = _zeros_token_major(query)
        heads = query.shape[1]
        probabilities = query.new_empty(heads * sum(prod(piece.shape) for piece in pieces))
        for piece, p in _probability_views(probabilities, pieces, heads):
            q, y = (t[piece.text, :, piece.queries] for t in (query, out))
            k, v = (t[piece.text, :, piece.keys] for t in (key, value))
            torch.baddbmm(p, q, k.transpose(1, 2), beta=0, alpha=scale, out=p)
            piece.hide_(p)
            torch.softmax(p, dim=-1, out=p)
            torch.bmm(p, v, out=y)
        ctx.save_for_backward(query, key, value, probabilities)
        ctx.pieces, ctx.scale = pieces, scale
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, dy_rows: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, probabilities = ctx.saved_tensors
        dy_all = dy_rows.transpose(1, 2)
        dq_all, dk_all, dv_all = (_zeros_token_major(query) for _ in range(3))
        heads = query.shape[1]
        scratch = probabilities.new_empty(heads * max(prod(each.shape) for each in ctx.pieces))
        for piece, p in _probability_views(probabilities, ctx.pieces, heads):
            q, dy, dq = (t[piece.text, :, piece.queries] for t in (query, dy_all, dq_all))
            k, v, dk, dv = (t[piece.text, :, piece.keys] for t in (key, value, dk_all, dv_all))
            ds = scratch[: p.numel()].view_as(p)
            before = 0 if piece.queries.start == 0 else 1  # do other pieces see these keys?
            torch.baddbmm(dv, p.transpose(1, 2), dy, beta=before, out=dv)
            torch.bmm(dy, v.transpose(1, 2), out=ds)
            torch._softmax_backward_data(ds, p, -1, p.dtype, grad_input=ds)
            torch.baddbmm(dq, ds, k, beta=0, alpha=ctx.scale, out=dq)
            torch.baddbmm(dk, ds.transpose(1, 2), q, beta=before, alpha=ctx.scale, out=dk)
        return dq_all, dk_all, dv_all, None, None


def _probability_views(
    probabilities: Tensor, pieces: Sequence[_Piece], heads: int
) -> Iterator[tuple[_Piece, Tensor]]:
    """Yield each piece with a view of one buffer: its probabilities (heads, queries, keys)."""
    sizes = [heads * prod(piece.shape) for piece in pieces]
    for piece, part in zip(pieces, torch.split(probabilities, sizes), strict=True):
        yield piece, part.view(heads, *piece.shape)


def _zeros_token_major(heads: Tensor) -> Tensor:
    """Return zeros (batch, heads, length, size), in memory (batch, length, heads, size)."""
    batch, count, length, size = heads.shape
    return heads.new_zeros((batch, length, count, size)).transpose(1, 2)


AttentionInterface.register(ATTENTION_NAME, attention_forward)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
