"""Attention on the native engine, with gradients."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lora_core.fast.native.library import (
    AttentionStruct,
    Library,
    StridedTensorStruct,
    window_or_none,
)

SIZE_STEP = 32  # the size of a head is a multiple of it


class NativeAttention(torch.autograd.Function):
    """softmax(s Q Kᵀ) V of texts of different lengths, with no probability kept.

    Q, K, V (batch, heads, tokens, size) in bf16 -> (batch, tokens, heads, size). Rows of padding
    are zeros, and so are their gradients.
    """

    @staticmethod
    def forward(  # noqa: PLR0913 - the arguments of attention
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        lengths: Sequence[int],
        scale: float,
        window: int | None,
        library: Library,
    ) -> Tensor:
        """`lengths`: tokens of each text. `window`: how far a token sees to each side; None: all of
        its text."""
        inputs = [_rows_together(each) for each in (query, key, value)]
        batch, heads, tokens, size = query.shape
        out = query.new_zeros(batch, tokens, heads, size).transpose(1, 2)
        log_sums = torch.empty(batch, heads, tokens)
        counts = np.array(lengths, np.int32)  # in a variable: the call reads its memory
        settings = _settings(out, counts, log_sums, scale, window)
        call = AttentionStruct(*settings, *map(_rows, (*inputs, out)))
        library.attention_forward(call, threads=torch.get_num_threads())
        ctx.save_for_backward(*inputs, out, log_sums)
        ctx.settings, ctx.library, ctx.counts = (scale, window), library, counts
        return out.transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        *inputs, out, log_sums = ctx.saved_tensors
        d_out = _rows_together(d_out.transpose(1, 2))
        gradients = [torch.zeros_like(out) for _ in inputs]  # tokens before heads in memory, as out
        settings = _settings(out, ctx.counts, log_sums, *ctx.settings)
        call = AttentionStruct(*settings, *map(_rows, (*inputs, out, d_out, *gradients)))
        ctx.library.attention_backward(call, threads=torch.get_num_threads())
        return *gradients, None, None, None, None


def _settings(
    out: Tensor, counts: Any, log_sums: Tensor, scale: float, window: int | None
) -> tuple[Any, ...]:
    batch, heads, tokens, size = out.shape
    return (batch, heads, size, tokens, window_or_none(window), scale,
            counts.ctypes.data, log_sums.data_ptr())  # fmt: skip


def _rows_together(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def _rows(x: Tensor) -> StridedTensorStruct:
    text, head, token, _ = x.stride()
    return StridedTensorStruct(x.data_ptr(), text, head, token)
