"""The blocks of ModernBERT as functions of states and one mask, like those of the other families.

They differ from those of BERT (Warner et al. 2024, arXiv 2412.13663): a norm comes before each half
of a block, positions are rotations of query and key, most blocks attend only within a window, and
the feed-forward network has a gate. transformers gives every block the rotations, and a square mask
per text that contains the window. Here the blocks share the rotations, which are computed once per
length, and the mask is one row per text.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lora_core.encoders import local_attention
from lora_core.encoders.encoder_parts import blocks
from lora_core.encoders.families import FULL_ATTENTION, EncoderFamily


class RotaryEmbedding:
    """cos and sin of the angles of each position, per type of block (Su et al. 2021, RoFormer)."""

    def __init__(self, model: Any) -> None:
        self._compute = model.base_model.rotary_emb
        self._cached: dict[str, tuple[Tensor, Tensor]] = {}

    def __call__(self, layer_type: str, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return cos and sin, (length, 1, 1, size / 2) in float32."""
        cached = self._cached.get(layer_type)
        if cached is None or len(cached[0]) < length or cached[0].device != device:
            positions = torch.arange(length, device=device)[None]
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                cos, sin = self._compute(torch.empty(0, device=device), positions, layer_type)
            half = cos.shape[-1] // 2  # the other half is the same
            cached = tuple(table[0, :, None, None, :half].contiguous() for table in (cos, sin))
            self._cached[layer_type] = cached
        return cached[0][:length], cached[1][:length]


class _RotateAndSplit(torch.autograd.Function):
    """qkv (..., length, 3, heads, size) -> rotated query, rotated key, and value.

    One function, so that the backward pass writes each gradient once, into its place in dqkv.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(cos, sin)
        query, key = apply_rotary(qkv[..., :2, :, :], cos, sin).unbind(-3)
        return query, key, qkv[..., 2, :, :]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        dq, dk, dv = gradients
        dqkv = dv.new_empty((*dv.shape[:-2], 3, *dv.shape[-2:]))
        for i, dy in enumerate((dq, dk)):  # by the inverse rotation
            dqkv[..., i, :, :] = apply_rotary(dy, cos[:, 0], -sin[:, 0])
        dqkv[..., 2, :, :] = dv
        return dqkv, None, None


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x (…, size), computed in float32; cos and sin are broadcast to (…, size / 2).

    Each pair of numbers i and i + size / 2 is a point of the plane.
    """
    out = x.to(torch.float32, copy=True)
    a, b = out.chunk(2, dim=-1)
    old_a = a.clone()
    a.mul_(cos).addcmul_(b, sin, value=-1)
    b.mul_(cos).addcmul_(old_a, sin)
    return out.to(x.dtype)


def attention_window(block: Any) -> int | None:
    """Return how far a token of this block sees to each side; None: all of its text."""
    return None if block.attention_type == FULL_ATTENTION else block.config.sliding_window


class BlockForward:
    """The forward pass of one block."""

    def __init__(self, block: Any, rotations: RotaryEmbedding) -> None:
        self.first_only = False  # whether to compute only the first token of each text
        self._block = block
        self._rotations = rotations
        self._window = attention_window(block)

    def __call__(self, x: Tensor, attention_mask: Tensor | None = None, **_: Any) -> Tensor:
        """x (batch, length, width) -> the same shape, or (batch, 1, width) for the first token.

        The mask is (batch, 1, 1 or length, length), true for the tokens of a text.
        """
        mask, window = attention_mask, self._window
        if mask is not None and mask.shape[2] > 1:  # from transformers, with the window in it
            mask = mask.any(dim=2, keepdim=True)
        if self.first_only and window is not None:  # it sees no others
            x, mask = x[:, : window + 1], None if mask is None else mask[..., : window + 1]
        block, attention = self._block, self._block.attn
        qkv = attention.Wqkv(block.attn_norm(x)).unflatten(2, (3, -1, attention.head_dim))
        if torch.is_autocast_enabled(x.device.type):  # DoRA computes in float32
            qkv = qkv.to(torch.get_autocast_dtype(x.device.type))
        cos, sin = self._rotations(block.attention_type, x.shape[1], x.device)
        split = _RotateAndSplit.apply(qkv, cos, sin)  # type: ignore[no-untyped-call]
        query, key, value = (each.transpose(1, 2) for each in split)  # (batch, heads, length, size)
        if self.first_only:
            query, x = query[:, :, :1], x[:, :1]
        attend = ALL_ATTENTION_FUNCTIONS[block.config._attn_implementation]
        dropout = attention.attention_dropout if block.training else 0.0
        y, _ = attend(attention, query, key, value, mask, dropout=dropout, window=window)
        x = x + attention.out_drop(attention.Wo(y.flatten(2)))
        out: Tensor = x + block.mlp(block.mlp_norm(x))
        return out


def patch_blocks(model: Any, family: EncoderFamily) -> None:
    """Let every block compute its output from states and a mask of one row per text.

    Does nothing to a model whose blocks do already.
    """
    every: list[Any] = list(blocks(model, family))
    if any(isinstance(block.forward, BlockForward) for block in every):
        return
    model.set_attn_implementation(local_attention.ATTENTION_NAME)
    rotations = RotaryEmbedding(model)
    for block in every:
        block.forward = BlockForward(block, rotations)


def transformers_4_config_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that transformers 4 wrote in place of `layer_types` and `rope_parameters`.

    The distance of global blocks is left out if it is not the same everywhere.
    """
    types, angles = config["layer_types"], config["rope_parameters"]
    fields = {
        "global_rope_theta": angles[FULL_ATTENTION]["rope_theta"],
        "local_rope_theta": angles["sliding_attention"]["rope_theta"],
    }
    for distance in range(1, len(types) + 1):
        if all((each == FULL_ATTENTION) == (i % distance == 0) for i, each in enumerate(types)):
            return {**fields, "global_attn_every_n_layers": distance}
    return fields
