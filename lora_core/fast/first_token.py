"""Compute only what a classifier reads of the last block: its first token.

The head looks at the state of [CLS] alone. So the last block needs query, attention output and
feed-forward network for one token. Nor does it need the keys and values of the others, since a sum
over tokens may be taken before the product as well as after it. With query q and p the softmax,
for each head:

q · (K x_t + c) = (Kᵀ q) · x_t + q · c    Σ_t p_t (V x_t + d) = V (Σ_t p_t x_t) + d

The softmax does not see q · c, which is the same for every token. So the last block costs next to
nothing, and the answer is the same.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_core.encoders import pooling
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks, is_pooled
from lora_core.layers.base import AdapterLinear


def use(model: nn.Module, family: EncoderFamily) -> None:
    """Let the last block return states (batch, 1, width). Names and weights stay as they are."""
    last: Any = blocks(model, family)[-1]
    if is_pooled(model.config):
        last.forward = partial(_averaged, last, family.norms)
        return
    last.forward = partial(_FIRST_TOKEN[family.model_type], last)


def _averaged(
    block: Any, norms: tuple[str, str], x: Tensor, mask: Tensor | None = None, *_args: Any, **_: Any
) -> Tensor:
    return pooling.average(block, norms, x, mask)


def _distilbert(block: Any, x: Tensor, mask: Tensor | None = None, **_: Any) -> Tensor:
    attention = block.attention
    query = attention.q_lin(x[:, :1])
    attended = _attend(attention, query, attention.k_lin, attention.v_lin, x, mask)
    y = block.sa_layer_norm(attention.out_lin(attended) + x[:, :1])
    out: Tensor = block.output_layer_norm(block.ffn(y) + y)
    return out


def _bert(block: Any, x: Tensor, mask: Tensor | None = None, *_args: Any, **_: Any) -> Tensor:
    attention = block.attention.self
    query = attention.query(x[:, :1])
    attended = _attend(attention, query, attention.key, attention.value, x, mask)
    y = block.attention.output(attended, x[:, :1])
    out: Tensor = block.output(block.intermediate(y), y)
    return out


_FIRST_TOKEN: Mapping[str, Callable[..., Tensor]] = {
    "distilbert": _distilbert,
    "bert": _bert,
    "roberta": _bert,
}


def _attend(
    attention: Any, query: Tensor, key: nn.Module, value: nn.Module, x: Tensor, mask: Tensor | None
) -> Tensor:
    """One query (batch, 1, width), all states x (batch, length, width) -> (batch, 1, width)."""
    row = None if mask is None else mask[:, :, :1]  # (batch, 1, 1, length)
    size = attention.attention_head_size
    dropout = attention.dropout.p if attention.training else 0.0
    if dropout == 0 and _is_a_product(key) and _is_a_product(value):
        return _before_the_product(query, key, value, x, row, size)
    q, k, v = (
        states.view(*states.shape[:2], -1, size).transpose(1, 2)
        for states in (query, key(x), value(x))
    )
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=row, dropout_p=dropout)
    return y.transpose(1, 2).flatten(2)


def _is_a_product(layer: nn.Module) -> bool:
    """Whether its output is that of its weight and bias."""
    return not (isinstance(layer, AdapterLinear) and layer.applies_dropout)


def _before_the_product(
    query: Tensor, key: Any, value: Any, x: Tensor, row: Tensor | None, size: int
) -> Tensor:
    """The heads of one text become queries of one head whose keys and values are the states.

    Of an `AdapterLinear` weight and bias are the effective ones.
    """
    q = query.view(len(x), -1, size)  # (batch, heads, size)
    a_head = q.shape[1:]
    turned = torch.einsum("bhs,hsd->bhd", q, key.weight.view(*a_head, -1))  # Kᵀ q of each head
    states = x[:, None]  # (batch, 1, length, width)
    summed = F.scaled_dot_product_attention(  # Σ p x, (batch, 1, heads, width)
        turned[:, None], states, states, attn_mask=row, scale=size**-0.5
    )
    y = torch.einsum("bhd,hsd->bhs", summed[:, 0], value.weight.view(*a_head, -1))
    y = y.flatten(1)[:, None]  # (batch, 1, heads · size)
    return y if value.bias is None else y + value.bias
