"""ModernBERT on packed texts: `PackedEncoder` with the blocks of `encoders/modernbert.py`."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from lora_core.encoders.encoder_parts import blocks
from lora_core.encoders.families import FastPathFamily
from lora_core.encoders.modernbert import RotaryEmbedding, apply_rotary, attention_window
from lora_core.fast.native.blocks import UnpackedBlockWeights
from lora_core.inference.adapter import Adapter
from lora_core.inference.packed_encoder import (
    BatchLayout,
    EncoderBlockWeights,
    PackedEncoder,
    RowKind,
)

MAX_POSITIONS = 8192  # the longest text that a version may read


class PackedModernBert(PackedEncoder):
    """The same as `PackedEncoder` for ModernBERT.

    Norms come first in a block, positions are rotations of query and key, most blocks attend within
    a window, and the feed-forward network has a gate.
    """

    def __init__(
        self, model: PreTrainedModel, family: FastPathFamily, *arguments: Any, **settings: Any
    ) -> None:
        every: list[Any] = list(blocks(model, family))
        self._layer_types = [block.attention_type for block in every]
        self._windows = [attention_window(block) for block in every]
        self._rotations = RotaryEmbedding(model)
        # Nothing else in a file bounds this number.
        self._positions = min(model.config.max_position_embeddings, MAX_POSITIONS)
        super().__init__(model, family, *arguments, **settings)
        model.to(self.device)
        self._final_norm: Any = model.get_submodule(family.final_norm or "")
        self._norm_eps = model.config.norm_eps

    def _native_weights(self, index: int) -> UnpackedBlockWeights:
        layer_type = self._layer_types[index]
        cos, sin = self._rotations(layer_type, self._positions, torch.device("cpu"))
        rotation = cos[:, 0, 0], sin[:, 0, 0]
        return (
            super()._native_weights(index)._replace(rotation=rotation, window=self._windows[index])
        )

    def _run_block(
        self, index: int, block: EncoderBlockWeights, x: Tensor, layout: BatchLayout
    ) -> Tensor:
        last = self._first_only and index == len(self._blocks) - 1
        first, second = block.norms
        qkv = self._linear(block, (index, "qkv"), first(x), layout, "tokens")
        kind: RowKind = "texts" if last else "tokens"
        cos, sin = self._rotations(self._layer_types[index], max(layout.lengths), x.device)
        positions = layout.positions.to(x.device)
        qkv = qkv.view(len(x), 3, self._heads, -1)
        qkv[:, :2] = apply_rotary(qkv[:, :2], cos[positions], sin[positions])  # query and key
        window = self._windows[index]
        y = self._attention(qkv.flatten(1), layout, first_only=last, window=window)
        y = self._linear(block, (index, "projection"), y, layout, kind)
        x = (x[layout.starts] if last else x) + y
        y = self._linear(block, (index, "up"), second(x), layout, kind)
        y = self._activate(block.activation, y)
        return x + self._linear(block, (index, "down"), y, layout, kind)

    def _activate(self, activation: Any, y: Tensor) -> Tensor:
        hidden, gate = y.chunk(2, dim=-1)
        out: Tensor = activation(hidden) * gate
        return out

    def _pool(self, x: Tensor, layout: BatchLayout) -> Tensor:
        x = self._final_norm(x)
        return x if self._first_only else layout.mean(x)

    def _head(self, x: Tensor, adapter: Adapter) -> Tensor:
        first, (norm_weight, norm_bias), last = adapter.head
        hidden = self._head_activation(F.linear(x.float(), *first))
        shape = hidden.shape[-1:]
        return F.linear(F.layer_norm(hidden, shape, norm_weight, norm_bias, self._norm_eps), *last)
