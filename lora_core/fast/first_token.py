"""Compute only the output of the last block that a classifier reads: its first token.

The head reads the state of [CLS] alone. So the last block needs query, attention output and
feed-forward network for one token. It does not need the keys and values of the other tokens
either, since the sum over tokens can be taken before the matrix product. With query q and the
softmax p, for each head:

q · (K x_t + c) = (Kᵀ q) · x_t + q · c    Σ_t p_t (V x_t + d) = V (Σ_t p_t x_t) + d

The softmax does not depend on q · c, which is the same for every token. So the last block costs
almost nothing, and its output is the same. (Not in ModernBERT, which rotates keys by position.)
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_core.encoders import modernbert, pooling
from lora_core.encoders.encoder_parts import (
    blocks,
    has_mean_classifier_pooling,
    has_mean_pooling_block,
)
from lora_core.encoders.families import MODERNBERT, FastPathFamily
from lora_core.layers.base import AdapterLinear


def patch_last_block(model: nn.Module, family: FastPathFamily) -> None:
    """Let the last block compute only the states that the head reads. Names and weights stay the
    same.

    These are (batch, 1, width), or those of all tokens where ModernBERT's head takes their mean.
    """
    last: Any = blocks(model, family)[-1]
    if family is MODERNBERT:
        modernbert.patch_blocks(model, family)
        last.forward.first_only = not has_mean_classifier_pooling(model.config, family)
        return
    if has_mean_pooling_block(model.config):
        last.forward = partial(_average_forward, last, family.norms)
        return
    last.forward = partial(_FORWARDS[family.model_type], last)


def _average_forward(
    block: Any, norms: tuple[str, str], x: Tensor, mask: Tensor | None = None, *_args: Any, **_: Any
) -> Tensor:
    return pooling.run_mean_pooling_block(block, norms, x, mask)


def _distilbert_forward(block: Any, x: Tensor, mask: Tensor | None = None, **_: Any) -> Tensor:
    attention = block.attention
    query = attention.q_lin(x[:, :1])
    attended = _attend(attention, query, attention.k_lin, attention.v_lin, x, mask)
    y = block.sa_layer_norm(attention.out_lin(attended) + x[:, :1])
    out: Tensor = block.output_layer_norm(block.ffn(y) + y)
    return out


def _bert_forward(
    block: Any, x: Tensor, mask: Tensor | None = None, *_args: Any, **_: Any
) -> Tensor:
    attention = block.attention.self
    query = attention.query(x[:, :1])
    attended = _attend(attention, query, attention.key, attention.value, x, mask)
    y = block.attention.output(attended, x[:, :1])
    out: Tensor = block.output(block.intermediate(y), y)
    return out


_FORWARDS: Mapping[str, Callable[..., Tensor]] = {
    "distilbert": _distilbert_forward,
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _bert_forward),
}


def _attend(
    attention: Any, query: Tensor, key: nn.Module, value: nn.Module, x: Tensor, mask: Tensor | None
) -> Tensor:
    """Attend from one query (batch, 1, width) to all states x (batch, length, width).

    Returns (batch, 1, width).
    """
    row = None if mask is None else mask[:, :, :1]  # (batch, 1, 1, length)
    size = attention.attention_head_size
    dropout = attention.dropout.p if attention.training else 0.0
    if dropout == 0 and _is_linear(key) and _is_linear(value):
        return _attend_to_states(query, key, value, x, row, size)
    q, k, v = (
        states.view(*states.shape[:2], -1, size).transpose(1, 2)
        for states in (query, key(x), value(x))
    )
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=row, dropout_p=dropout)
    return y.transpose(1, 2).flatten(2)


def _is_linear(layer: nn.Module) -> bool:
    """Return whether the output of a layer is that of its `weight` and `bias`."""
    return not (isinstance(layer, AdapterLinear) and layer.applies_dropout)


def _attend_to_states(
    query: Tensor, key: Any, value: Any, x: Tensor, row: Tensor | None, size: int
) -> Tensor:
    """Attend with the states themselves as keys and values, and project before and after.

    The heads of a text become queries of a single head. The weight and bias of an `AdapterLinear`
    include its adapter.
    """
    q = query.view(len(x), -1, size)  # (batch, heads, size)
    split = (*q.shape[1:], -1)  # of weights: (heads, size, width)
    projected = torch.einsum("bhs,hsd->bhd", q, key.weight.view(split))  # Kᵀ q of each head
    states = x[:, None]  # (batch, 1, length, width)
    summed = F.scaled_dot_product_attention(  # Σ p x, (batch, 1, heads, width)
        projected[:, None], states, states, attn_mask=row, scale=size**-0.5
    )
    y = torch.einsum("bhd,hsd->bhs", summed[:, 0], value.weight.view(split))
    y = y.flatten(1)[:, None]  # (batch, 1, heads · size)
    return y if value.bias is None else y + value.bias
