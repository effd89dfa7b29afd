"""Compute only what a classifier reads of the last block: its first token.

The head looks at the state of [CLS] alone. So in the last block keys and values are needed for
every token, but query, attention output and feed-forward network for one: the same answer for a
sixth less work with six layers.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks


def shorten(model: nn.Module, family: EncoderFamily) -> None:
    """Let the last block return states (batch, 1, width). Names and weights stay as they are."""
    last: Any = blocks(model, family)[-1]
    last.forward = partial(_FIRST_TOKEN[family.model_type], last)


def _distilbert(block: Any, x: Tensor, mask: Tensor | None = None, **_: Any) -> Tensor:
    attention = block.attention
    query, key, value = attention.q_lin(x[:, :1]), attention.k_lin(x), attention.v_lin(x)
    attended = _attend(attention, query, key, value, mask)
    y = block.sa_layer_norm(attention.out_lin(attended) + x[:, :1])
    out: Tensor = block.output_layer_norm(block.ffn(y) + y)
    return out


def _bert(block: Any, x: Tensor, mask: Tensor | None = None, *_args: Any, **_: Any) -> Tensor:
    attention = block.attention.self
    query, key, value = attention.query(x[:, :1]), attention.key(x), attention.value(x)
    attended = _attend(attention, query, key, value, mask)
    y = block.attention.output(attended, x[:, :1])
    out: Tensor = block.output(block.intermediate(y), y)
    return out


_FIRST_TOKEN: Mapping[str, Callable[..., Tensor]] = {"distilbert": _distilbert, "bert": _bert}


def _attend(
    attention: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> Tensor:
    """One query, all keys: (batch, 1, width), (batch, length, width) twice -> (batch, 1, width)."""
    size = attention.attention_head_size
    q, k, v = (t.view(*t.shape[:2], -1, size).transpose(1, 2) for t in (query, key, value))
    dropout = attention.dropout.p if attention.training else 0.0
    row = None if mask is None else mask[:, :, :1]
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=row, dropout_p=dropout)
    return y.transpose(1, 2).flatten(2)
