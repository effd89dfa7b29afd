"""Attention in which each token sees only the tokens within a window around it.

The texts are cut into chunks of `window` tokens. The tokens of a chunk see at most that chunk and
its two neighbors, so memory and time grow with the length of a text, not with its square:

queries (window) of chunk c    keys (3 · window) of the chunks c - 1, c, c + 1

(Beltagy et al. 2020, arXiv 2004.05150, section 3.1.) For shorter texts the square with a mask is
faster: on one AMD core in bf16, texts of 256 tokens, a window of 64 and 6 heads of 64 take 91 ms
per 4,096 tokens against 158 for chunks, those of 384 96 against 103, those of 512 171 against 138.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from lora_core.encoders.families import MAX_SQUARE_WINDOWS

ATTENTION_NAME = "loraworks_local"


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    window: int | None,
    *,
    dropout: float = 0.0,
) -> Tensor:
    """Q, K, V (batch, heads, length, size) -> (batch, heads, length, size).

    Args:
        query: Queries, of all tokens or of the first ones.
        key: Keys of all tokens.
        value: Values of all tokens.
        mask: The keys that any query may see, (batch, 1, 1, length) and true for those; None: all.
        window: Query i sees key j if |i - j| <= window. None: it sees all.
        dropout: Rate of the dropout of probabilities.
    """
    length = key.shape[2]
    if window is not None and length > window + 1:
        if length > MAX_SQUARE_WINDOWS * window and query.shape[2] == length:
            return _attend_in_chunks(query, key, value, mask, window, dropout)
        mask = visible_keys(query.shape[2], length, window, mask, key.device)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)


def visible_keys(
    queries: int, keys: int, window: int, mask: Tensor | None, device: torch.device
) -> Tensor:
    """Return which keys each query sees, (1 or batch, 1, queries, keys).

    Each token sees itself, even if it is padding: softmax over nothing would be NaN.
    """
    distance = torch.arange(keys, device=device) - torch.arange(queries, device=device)[:, None]
    near = (distance.abs() <= window)[None, None]
    return near if mask is None else near & (mask | (distance == 0))


def _attend_in_chunks(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, window: int, dropout: float
) -> Tensor:
    batch, _, length, _ = query.shape
    chunks = -(-length // window)
    surplus = chunks * window - length  # tokens after the end of the last chunk
    q = _unfold(F.pad(query, (0, 0, 0, surplus)), window, window)
    around = (0, 0, window, window + surplus)
    k, v = (_unfold(F.pad(states, around), 3 * window, window) for states in (key, value))

    seen = query.new_ones(1, 1, 1, length, dtype=torch.bool) if mask is None else mask
    row = F.pad(seen, (window, window + surplus)).unfold(3, 3 * window, window)
    # (batch · chunks, 1, 1, ·)
    row = row.expand(batch, -1, -1, -1, -1).flatten(0, 3)[:, None, None]
    # the distance of key j and query i of a chunk is j - window - i
    distance = torch.arange(3 * window, device=query.device) - window
    distance = distance - torch.arange(window, device=query.device)[:, None]
    near = (distance.abs() <= window) & (row | (distance == 0))

    y = F.scaled_dot_product_attention(q, k, v, attn_mask=near, dropout_p=dropout)
    y = y.view(batch, chunks, *y.shape[1:]).transpose(1, 2)  # (batch, heads, chunks, window, size)
    return y.flatten(2, 3)[:, :, :length]


def _unfold(states: Tensor, size: int, step: int) -> Tensor:
    """(batch, heads, tokens, width) -> (batch · chunks, heads, size, width)."""
    chunks = states.unfold(2, size, step)  # (batch, heads, chunks, width, size)
    return chunks.permute(0, 2, 1, 4, 3).flatten(0, 1)


def attention_forward(  # the signature of transformers, and the window
    _module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Q, K, V (batch, heads, length, size) -> (batch, length, heads, size), as in transformers."""
    y = attend(query, key, value, attention_mask, window, dropout=dropout)
    return y.transpose(1, 2), None


AttentionInterface.register(ATTENTION_NAME, attention_forward)
AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
