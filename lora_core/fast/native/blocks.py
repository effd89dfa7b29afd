"""The blocks of one model on the native engine: weights as `product.h` wants them, and batches."""

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_core.encoders.encoder_parts import is_exact_gelu
from lora_core.fast.native.library import (
    BatchStruct,
    BlockStruct,
    EncoderStruct,
    InvalidArguments,
    Library,
    LinearStruct,
    LowRankStruct,
    NormStruct,
    window_or_none,
)

_LAYERS = ("qkv", "projection", "up", "down")  # in the order of `LowRankStruct` in a batch
_STEP = 32  # sizes are multiples of it; ranks are padded to one
ROW_STEP = 16  # the rows of each version begin at a multiple of it

LinearWeights = tuple[Tensor, Tensor | None]  # weight (d_out, d_in), bias (d_out,)


class UnpackedBlockWeights(NamedTuple):
    """One block of a model in torch."""

    layers: Mapping[str, LinearWeights]  # qkv, projection, up, down
    norms: tuple[Any, Any]
    rotation: tuple[Tensor, Tensor] | None  # cos and sin, (positions, head size / 2)
    window: int | None  # how far a token sees to each side; None: all of its text


class SharedBlockSettings(NamedTuple):
    """What all blocks have in common."""

    heads: int
    norm_first: bool
    gated: bool
    first_only: bool  # whether the last block computes only the first token of each text


class UnsupportedBlocks(Exception):
    """The native engine does not compute such blocks; the message says why."""


@dataclass(frozen=True, eq=False)
class PackedAdapter:
    """The packed LoRA weights of a version: four `LowRankStruct` per block."""

    low_rank: Any  # ctypes array
    tensors: Sequence[Tensor]  # keeps their memory alive

    @property
    def nbytes(self) -> int:
        """Memory of the tensors in bytes."""
        return sum(tensor.nbytes for tensor in self.tensors)


def check_supported(
    blocks: Sequence[UnpackedBlockWeights], settings: SharedBlockSettings, activation: Any
) -> None:
    """Raise `UnsupportedBlocks` if the native engine cannot compute these blocks."""
    width = blocks[0].layers["projection"][0].shape[0]
    feed_forward = blocks[0].layers["down"][0].shape[1]
    head_size = width // settings.heads
    if head_size % _STEP or feed_forward % _STEP:
        raise UnsupportedBlocks(
            f"heads and feed-forward networks whose sizes are multiples of {_STEP}, and not "
            f"{head_size} and {feed_forward}"
        )
    if not is_exact_gelu(activation):
        raise UnsupportedBlocks("the exact GELU as activation")
    norms = [norm for block in blocks for norm in block.norms if type(norm) is not nn.Identity]
    if any(type(norm) is not nn.LayerNorm for norm in norms) or len({n.eps for n in norms}) != 1:
        raise UnsupportedBlocks("layer norms with the same epsilon")
    tables = [table for block in blocks for table in block.rotation or ()]
    if any(table.shape[1] != head_size // 2 for table in tables):
        raise UnsupportedBlocks("rotations of whole heads")


class NativeBlocks:
    """Computes all blocks of an encoder in one call, with LoRA weights per version. Thread-safe."""

    def __init__(
        self,
        library: Library,
        blocks: Sequence[UnpackedBlockWeights],
        settings: SharedBlockSettings,
    ) -> None:
        """`blocks` are supported, see `check_supported`."""
        self._library = library
        self._settings = settings
        self._width = blocks[0].layers["projection"][0].shape[0]
        feed_forward = blocks[0].layers["down"][0].shape[1]
        head_size = self._width // settings.heads
        self._orders = {
            "qkv": _rotary_order(settings.heads, head_size) if blocks[0].rotation else None,
            "up": _gate_order(feed_forward) if settings.gated else None,
        }
        self._tensors: dict[int, Tensor] = {}  # by address; keeps their memory alive
        self._blocks = (BlockStruct * len(blocks))(*(self._pack_block(block) for block in blocks))
        norms = [norm for block in blocks for norm in block.norms if type(norm) is nn.LayerNorm]
        rotation = blocks[0].rotation
        self._encoder = EncoderStruct(
            self._blocks, len(blocks), self._width, settings.heads, head_size, feed_forward,
            settings.norm_first, settings.gated, settings.first_only,
            0 if rotation is None else len(rotation[0]), norms[0].eps,
        )  # fmt: skip

    def pack_adapter(self, lora: Mapping[tuple[int, str], Any]) -> PackedAdapter:
        """Pack LoRA weights; `lora` has A (R, d_in) and B (d_out, R) by block and layer.

        Raises `ValueError` if they do not have the shape of their layer.
        """
        low_rank = (LowRankStruct * (4 * len(self._blocks)))()
        tensors: list[Tensor] = []
        for (block, layer), weights in lora.items():
            rank = len(weights.A)
            sizes: LinearStruct = getattr(self._blocks[block], layer)
            if weights.A.shape != (rank, sizes.inputs) or weights.B.shape != (sizes.outputs, rank):
                raise ValueError(f"LoRA weights of block {block}, {layer}, have other sizes")
            padding = -rank % _STEP
            A = F.pad(weights.A.float(), (0, 0, 0, padding))
            B = F.pad(_in_order(weights.B.float(), self._orders.get(layer)), (0, padding))
            tensors += (a := _pack(A), b := _pack(B))
            low_rank[4 * block + _LAYERS.index(layer)] = LowRankStruct(
                a.data_ptr(), b.data_ptr(), rank
            )
        return PackedAdapter(low_rank, tensors)

    def __call__(
        self,
        x: Tensor,
        starts: Sequence[int],
        lengths: Sequence[int],
        versions: Sequence[tuple[int, int, PackedAdapter]],
        threads: int,
    ) -> Tensor:
        """Return the states after the last block: of each first token, or of all rows.

        Raises `InvalidArguments` if a text is empty, or longer than the encoder has positions, or
        if `x` has another width or type.

        Args:
            x: Embeddings (rows, width) in float32; overwritten.
            starts: First row of each text.
            lengths: Tokens of each text.
            versions: Rows and texts of each version, and its adapter, in the order of the rows.
            threads: Number of threads.
        """
        rows, texts = np.cumsum([(0, 0), *(version[:2] for version in versions)], axis=0).T
        arrays = [np.ascontiguousarray(each, np.int32) for each in (starts, lengths, rows, texts)]
        low_rank = (LowRankStruct * (4 * len(self._blocks) * len(versions)))()
        for i, (*_, adapter) in enumerate(versions):
            ctypes.memmove(
                ctypes.byref(low_rank, i * ctypes.sizeof(adapter.low_rank)),
                adapter.low_rank,
                ctypes.sizeof(adapter.low_rank),
            )
        if x.shape[1:] != (self._width,) or x.dtype != torch.float32:
            raise InvalidArguments(
                f"embeddings are (rows, {self._width}) in float32, and not {tuple(x.shape)} "
                f"in {x.dtype}"
            )
        x = x.contiguous()
        first = x.new_empty(len(starts), self._width)
        batch = BatchStruct(
            len(starts), len(x), len(versions), *(array.ctypes.data for array in arrays),
            low_rank, x.data_ptr(), first.data_ptr(),
        )  # fmt: skip
        self._library.encode(self._encoder, batch, threads=threads)
        return first if self._settings.first_only else x

    def _pack_block(self, block: UnpackedBlockWeights) -> BlockStruct:
        layers = []
        for name in _LAYERS:
            weight, bias = block.layers[name]
            order = self._orders.get(name)
            packed = self._keep(_pack(_in_order(weight, order)))
            pointer = None if bias is None else self._keep(_in_order(bias, order).float())
            layers.append(LinearStruct(packed, pointer, weight.shape[1], weight.shape[0]))
        norms = [NormStruct() if isinstance(norm, nn.Identity) else
                 NormStruct(self._keep(norm.weight), None if norm.bias is None else
                      self._keep(norm.bias)) for norm in block.norms]  # fmt: skip
        rotation = [None, None] if block.rotation is None else map(self._keep, block.rotation)
        return BlockStruct(*layers, *norms, *rotation, window_or_none(block.window))

    def _keep(self, tensor: Tensor) -> int:
        """Keep a tensor in memory, and return its address."""
        contiguous = tensor.detach().contiguous()
        return self._tensors.setdefault(contiguous.data_ptr(), contiguous).data_ptr()


def _pack(weight: Tensor) -> Tensor:
    """(outputs, inputs) -> bf16 [outputs / 16][inputs / 2][16][2]."""
    outputs, inputs = weight.shape
    panels = weight.detach().bfloat16().view(outputs // 16, 16, inputs // 2, 2)
    return panels.permute(0, 2, 1, 3).contiguous()


def _in_order(rows: Tensor, order: Tensor | None) -> Tensor:
    return rows if order is None else rows[order]


def _rotary_order(heads: int, head_size: int) -> Tensor:
    """Rows of query and key, so that 32 columns have 16 planes: their first, then their second
    coordinates. The same order in both does not change their products. Values stay.
    """
    width = heads * head_size
    planes = torch.arange(head_size).view(2, -1, 16).transpose(0, 1).flatten()
    head = torch.cat([planes + head_size * i for i in range(heads)])
    return torch.cat([head, head + width, torch.arange(2 * width, 3 * width)])


def _gate_order(feed_forward: int) -> Tensor:
    """Rows of the first layer, so that 32 columns have 16 of what passes, then their gates."""
    return torch.arange(2 * feed_forward).view(2, -1, 16).transpose(0, 1).flatten()
