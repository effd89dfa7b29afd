"""Encoders for inference on packed texts, in which each text may have its own adapter.

The same function as the classifiers of transformers, without what inference does not need. The
tokens of a batch are packed one text after the other, without padding. Query, key and value are
one product. Attention is computed for one text at a time. If the head reads only the first token of
each text, and not the mean of all, the last block computes no other.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lora_core import compatibility
from lora_core.artifact import SavedAdapter
from lora_core.data.batching import padded_length
from lora_core.encoders import local_attention
from lora_core.encoders.encoder_parts import (
    blocks,
    embedding_modules,
    has_mean_classifier_pooling,
    has_mean_pooling_block,
    head_activation,
    is_exact_gelu,
    pretrained_blocks,
    run_embedding_modules,
)
from lora_core.encoders.families import FastPathFamily
from lora_core.encoders.pooling import MEAN_SCALE
from lora_core.errors.artifact import EngineUnavailable
from lora_core.fast.native.blocks import (
    ROW_STEP,
    NativeBlocks,
    PackedAdapter,
    SharedBlockSettings,
    UnpackedBlockWeights,
    UnsupportedBlocks,
    check_supported,
)
from lora_core.fast.native.library import Library
from lora_core.fast.unfused_attention import LENGTH_STEP
from lora_core.inference.adapter import (
    Adapter,
    LinearWeights,
    LoraByLayer,
    build_lora_weights,
    head_from_model,
    head_from_tensors,
    parts_of_fused_layers,
)
from lora_core.inference.tokenization import TokenizedText

T = TypeVar("T")
RowKind = Literal["texts", "tokens"]  # what a row of a table holds
Backend: TypeAlias = Literal["torch", "compiled", "onednn"] | Library  # of the native engine

CPU_BATCH_TOKENS = 1024
MAX_UNFUSED_LENGTH = 1024  # tokens; for longer texts the probabilities would take much memory


class BatchLayout:
    """Row offsets of the texts of a batch, with the texts of each adapter next to each other.

    Args:
        lengths: Tokens of each text.
        adapters: Adapter of each text.
        step: The row count of each adapter is a multiple of `step`, and it has at least
            `padded_length(length, step)` rows from the start of each of its texts on. The surplus
            rows belong to no text. Attention reads those rows, so they must not be those of another
            adapter: a value that is not finite there would spread.
    """

    def __init__(self, lengths: Sequence[int], adapters: Sequence[Adapter], step: int = 1) -> None:
        self.order = sorted(range(len(lengths)), key=lambda i: id(adapters[i]))
        self.lengths = [lengths[i] for i in self.order]
        self.starts: list[int] = []
        self._text_slices: list[tuple[slice, Adapter]] = []
        self._token_slices: list[tuple[slice, Adapter]] = []
        row = first = 0
        for adapter, group in groupby(adapters[i] for i in self.order):
            end, first_row = first + len(list(group)), row
            for length in self.lengths[first:end]:
                self.starts.append(row)
                row += length
            row = padded_length(row - length + padded_length(length, step), step)
            self._text_slices.append((slice(first, end), adapter))
            self._token_slices.append((slice(first_row, row), adapter))
            first = end
        self.rows = row

    def adapter_slices(self, kind: RowKind) -> list[tuple[slice, Adapter]]:
        """Return the rows of each adapter."""
        return self._text_slices if kind == "texts" else self._token_slices

    def native_adapter_counts(self) -> list[tuple[int, int, PackedAdapter]]:
        """Return the number of rows and of texts of each adapter, and its packed weights."""
        slices = zip(self._token_slices, self._text_slices, strict=True)
        return [
            (rows.stop - rows.start, texts.stop - texts.start, cast(NativeAdapter, adapter).packed)
            for (rows, adapter), (texts, _) in slices
        ]

    @cached_property
    def positions(self) -> Tensor:
        """The position of each row in its text, from 0 on; 0 for rows of no text."""
        positions = torch.zeros(self.rows, dtype=torch.int64)
        for start, length in zip(self.starts, self.lengths, strict=True):
            positions[start : start + length] = torch.arange(length)
        return positions

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean of the rows of each text: (tokens, width) -> (texts, width)."""
        spans = zip(self.starts, self.lengths, strict=True)
        return torch.stack([x[start : start + length].mean(dim=0) for start, length in spans])

    def restore_order(self, rows: Sequence[T]) -> list[T]:
        """Return one row per text in the order in which the texts were given."""
        by_index = dict(zip(self.order, rows, strict=True))
        return [by_index[i] for i in range(len(rows))]


class UnfusedAttention:
    """softmax(s Q Kᵀ) V of one text, with the probabilities in a buffer per thread.

    For bf16 on a CPU, where heads of size 32 make the fused kernel of torch slow
    (docs/decisions/0019).
    """

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, length: int) -> Tensor:
        """Q, K, V (heads, rows, size) -> (heads, length, size).

        Rows after `length` only round the shape up to one that oneDNN has a kernel for; they do not
        change the result.
        """
        heads, rows, size = q.shape
        buffer: Tensor | None = getattr(self._of_thread, "buffer", None)
        if buffer is None or buffer.numel() < heads * rows * rows:
            buffer = self._of_thread.buffer = q.new_empty(heads * rows * rows)
        p = buffer[: heads * rows * rows].view(heads, rows, rows)
        torch.baddbmm(p, q, k.transpose(1, 2), beta=0, alpha=size**-0.5, out=p)
        p[:, :, length:] = -torch.inf
        torch.softmax(p, dim=-1, out=p)
        return torch.bmm(p, v)[:, :length]


@dataclass(frozen=True, eq=False)
class NativeAdapter(Adapter):
    """An adapter whose LoRA weights are packed for the native engine."""

    packed: PackedAdapter

    @property
    def nbytes(self) -> int:
        """Memory of the tensors in bytes."""
        return super().nbytes + self.packed.nbytes


_LayerNorms = tuple[Any, Any]  # after attention, and after the feed-forward network


@dataclass(frozen=True, eq=False)
class EncoderBlockWeights:
    """The weights of one block."""

    layers: dict[str, LinearWeights]  # by fused layer
    norms: _LayerNorms
    activation: Any


class PackedEncoder:
    """The encoder of a model, without its head. Thread-safe.

    Products are computed in `dtype`; the residual stream stays in float32.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        family: FastPathFamily,
        dtype: torch.dtype,
        device: str = "cpu",
        backend: Backend = "torch",
    ) -> None:
        """`backend` is what computes on a CPU.

        With `compiled`, torch compiles the operations between the products. Products and attention
        are kernels already, and attention depends on the lengths of the texts, of which there are
        too many to compile for. Compiling happens at the first use, takes about ten seconds and
        needs a C++ compiler.

        With `onednn`, that library computes the products, with weights in the order in which it
        reads them. torch would leave those in fp32 to MKL, which takes twice as long on AMD cores.

        With a library, the native engine computes the blocks. Raises `EngineUnavailable` if it
        cannot.
        """
        self._backend = backend if isinstance(backend, str) else "native"
        if backend == "compiled":
            self._add_norm = torch.compile(self._add_norm, dynamic=True)  # type: ignore[method-assign]
            self._activate = torch.compile(self._activate, dynamic=True)  # type: ignore[method-assign]
        self.family, self.dtype, self.device = family, dtype, device
        unfused = (dtype, device) == (torch.bfloat16, "cpu")
        self._unfused_attention = UnfusedAttention() if unfused else None
        self._row_step = LENGTH_STEP if unfused or backend == "onednn" else 1  # see `padded_length`
        self.shape = shape = compatibility.read_encoder_shape(
            model.config.to_dict(), base=family.model_type
        )
        self._heads = shape.heads
        self._has_segments = shape.segments > 1
        self._padding_idx = shape.padding  # RoBERTa: id and position of padding; others: -1
        self._head_activation = head_activation(family)
        model.eval()
        self._embeddings = [module.to(device) for module in embedding_modules(model, family)]
        self._blocks = [_fuse_block(block, family, dtype, device)
                        for block in pretrained_blocks(model, family)]  # fmt: skip
        self._first_only = not (  # of the last block
            has_mean_pooling_block(model.config)
            or has_mean_classifier_pooling(model.config, family)
        )
        self._pooling_norms = None  # of the block that averages
        if has_mean_pooling_block(model.config):
            self._pooling_norms = _layer_norms(blocks(model, family)[-1], family, device)
        tensors: list[Tensor] = [p for each in self._embeddings for p in each.parameters()]
        for block in self._blocks:
            tensors += [t for layer in block.layers.values() for t in layer if t is not None]
        self._nbytes = sum(t.nbytes for t in tensors)
        if backend == "onednn":
            for block in self._blocks:
                block.layers.update({name: (_pack_for_onednn(weight), bias)
                                     for name, (weight, bias) in block.layers.items()})  # fmt: skip
        self._fuses_gelu = (
            backend == "onednn" and not family.gated and is_exact_gelu(self._blocks[0].activation)
        )
        self._native = None if isinstance(backend, str) else self._build_native(backend)

    def _build_native(self, library: Library) -> NativeBlocks:
        """Move the blocks to the native engine."""
        weights = [self._native_weights(index) for index in range(len(self._blocks))]
        settings = SharedBlockSettings(
            heads=self._heads,
            norm_first=self.family.final_norm is not None,
            gated=self.family.gated,
            first_only=self._first_only,
        )
        try:
            check_supported(weights, settings, self._blocks[0].activation)
        except UnsupportedBlocks as error:
            raise EngineUnavailable(engine="native-bf16", needs=str(error)) from error
        native = NativeBlocks(library, weights, settings)
        self._blocks, self._row_step = [], ROW_STEP
        return native

    def _native_weights(self, index: int) -> UnpackedBlockWeights:
        block = self._blocks[index]
        return UnpackedBlockWeights(block.layers, block.norms, rotation=None, window=None)

    @property
    def name(self) -> str:
        """The name of the engine, such as `torch-bf16`: backend and precision."""
        backend = self._backend if self.device == "cpu" else self.device
        return f"{backend}-{'bf16' if self.dtype == torch.bfloat16 else 'fp32'}"

    @property
    def nbytes(self) -> int:
        """Memory of the weights in bytes."""
        return self._nbytes

    def extract_adapter(self, model: PreTrainedModel) -> Adapter:
        """Return the adapter of a version whose model this engine was built of: only a head."""
        return self.prepare_adapter(Adapter({}, head_from_model(model, self.family)))

    def build_adapter(self, saved: SavedAdapter | None, head: Mapping[str, Tensor]) -> Adapter:
        """Return the adapter of a version on this base.

        Args:
            saved: Its LoRA weights, if it has some.
            head: The content of its head.safetensors.
        """
        lora: LoraByLayer = {}
        if saved is not None:
            lora = build_lora_weights(saved.spec, saved.tensors, self.family)
        return self.prepare_adapter(Adapter(lora, head_from_tensors(head)))

    def prepare_adapter(self, adapter: Adapter) -> Adapter:
        """Return the adapter in the precision and on the device of this encoder."""
        if self._native is not None:
            return NativeAdapter({}, adapter.head, self._native.pack_adapter(adapter.lora))
        return adapter.to(self.dtype, self.device)

    @property
    def max_batch_tokens(self) -> int:
        """Maximum tokens of a batch; more are not faster. One text keeps a core busy, not a GPU."""
        return CPU_BATCH_TOKENS if self.device == "cpu" else 16_384

    @torch.inference_mode()
    def logits(
        self,
        texts: Sequence[TokenizedText],
        adapters: Sequence[Adapter],
        *,
        threads: int | None = None,
    ) -> list[Tensor]:
        """Return the logits (classes,) of each text by its own adapter, in float32 on the CPU.

        Args:
            texts: Tokens of each text.
            adapters: Adapter of each text, prepared by `prepare_adapter`.
            threads: Number of intra-op threads of the calling thread from now on; None keeps it.
        """
        x, layout = self._encode(texts, adapters, threads)
        return self._logits(x, layout)

    @torch.inference_mode()
    def logits_and_states(
        self,
        texts: Sequence[TokenizedText],
        adapters: Sequence[Adapter],
        *,
        threads: int | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """Return what `logits` returns, each with the input of the head (width,) for that text."""
        x, layout = self._encode(texts, adapters, threads)
        states = layout.restore_order(list(x.float().cpu()))
        return list(zip(self._logits(x, layout), states, strict=True))

    def _encode(
        self, texts: Sequence[TokenizedText], adapters: Sequence[Adapter], threads: int | None
    ) -> tuple[Tensor, BatchLayout]:
        """Return the input of the head (texts, width) in the order of the layout."""
        if threads is not None and threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        layout = BatchLayout([text.length for text in texts], adapters, self._row_step)
        x = self._embed([texts[i] for i in layout.order], layout)
        if self._native is not None:
            x = self._native(x, layout.starts, layout.lengths, layout.native_adapter_counts(),
                             torch.get_num_threads())  # fmt: skip
        for index, block in enumerate(self._blocks):
            x = self._run_block(index, block, x, layout)
        return self._pool(x, layout), layout

    def _logits(self, x: Tensor, layout: BatchLayout) -> list[Tensor]:
        return layout.restore_order([row for rows, adapter in layout.adapter_slices("texts")
                                     for row in self._head(x[rows], adapter).cpu()])  # fmt: skip

    def _embed(self, texts: Sequence[TokenizedText], layout: BatchLayout) -> Tensor:
        """Token ids -> packed embeddings (tokens, width)."""
        ids, positions, types = np.zeros((3, layout.rows), dtype=np.int64)
        for text, start, length in zip(texts, layout.starts, layout.lengths, strict=True):
            ids[start : start + length] = text.ids
            mask = np.not_equal(
                text.ids, self._padding_idx
            )  # a text may spell out the padding token
            positions[start : start + length] = np.cumsum(mask) * mask + self._padding_idx
            if text.segment_start is not None:
                types[start + text.segment_start : start + length] = 1
        inputs = {"input_ids": ids}
        if self.family.learned_positions:
            inputs["position_ids"] = positions
        if self._has_segments:
            inputs["token_type_ids"] = types
        x: Tensor = run_embedding_modules(
            self._embeddings,
            **{name: torch.from_numpy(each)[None].to(self.device) for name, each in inputs.items()},
        )
        return x[0]

    def _run_block(
        self, index: int, block: EncoderBlockWeights, x: Tensor, layout: BatchLayout
    ) -> Tensor:
        """(tokens, width) -> (tokens, width), or (texts, width) in the last block."""
        last = self._first_only and index == len(self._blocks) - 1
        qkv = self._linear(block, (index, "qkv"), x, layout, "tokens")
        kind: RowKind = "texts" if last else "tokens"
        y = self._attention(qkv, layout, first_only=last)
        y = self._linear(block, (index, "projection"), y, layout, kind)
        x = self._add_norm(block.norms[0], y, x[layout.starts] if last else x)
        y = self._up(index, block, x, layout, kind)
        y = self._linear(block, (index, "down"), y, layout, kind)
        return self._add_norm(block.norms[1], y, x)

    def _up(
        self, index: int, block: EncoderBlockWeights, x: Tensor, layout: BatchLayout, kind: RowKind
    ) -> Tensor:
        """Return the hidden states of the feed-forward network."""
        key = index, "up"
        if self._fuses_gelu and not any(
            key in adapter.lora for _, adapter in layout.adapter_slices(kind)
        ):
            return _onednn_product(x.to(self.dtype), *block.layers["up"], "gelu")
        return self._activate(block.activation, self._linear(block, key, x, layout, kind))

    def _pool(self, x: Tensor, layout: BatchLayout) -> Tensor:
        """Output of the last block -> input of the head (texts, width)."""
        if self._pooling_norms is None:
            return x
        first, second = self._pooling_norms  # what the block of `encoders/pooling.py` computes
        out: Tensor = second(first(MEAN_SCALE * layout.mean(x) + x[layout.starts]))
        return out

    def _add_norm(self, norm: nn.Module, y: Tensor, x: Tensor) -> Tensor:
        out: Tensor = norm(y + x)
        return out

    def _activate(self, activation: nn.Module, y: Tensor) -> Tensor:
        out: Tensor = activation(y)
        return out

    def _linear(
        self,
        block: EncoderBlockWeights,
        key: tuple[int, str],  # block index, fused layer
        x: Tensor,
        layout: BatchLayout,
        kind: RowKind,
    ) -> Tensor:
        x = x.to(self.dtype)
        product = _onednn_product if self._backend == "onednn" else F.linear
        y = product(x, *block.layers[key[1]])
        for rows, adapter in layout.adapter_slices(kind):
            if (lora := adapter.lora.get(key)) is not None:
                # (A xᵀ)ᵀ: with r columns, x Aᵀ takes up to twice as long in float32.
                y[rows].addmm_((lora.A @ x[rows].t()).t(), lora.B.t())
        return y

    def _attention(
        self, qkv: Tensor, layout: BatchLayout, *, first_only: bool, window: int | None = None
    ) -> Tensor:
        """(tokens, 3 · width) -> (tokens, width), or (texts, width) of the first tokens only.

        `window`: how far a token sees to each side; None: all of its text.
        """
        rows = len(layout.lengths) if first_only else len(qkv)
        out = qkv.new_zeros(rows, qkv.shape[1] // 3)
        for i, (start, length) in enumerate(zip(layout.starts, layout.lengths, strict=True)):
            if window is not None and length > window + 1:
                q, k, v = self._split_heads(qkv[start : start + length])[:, None]
                q = q[:, :, :1] if first_only else q
                y = local_attention.attend(q, k, v, None, window)[0]
            elif self._unfused_attention and not first_only and length <= MAX_UNFUSED_LENGTH:
                end = start + padded_length(length, self._row_step)
                q, k, v = self._split_heads(qkv[start:end])
                y = self._unfused_attention(q, k, v, length)
            else:
                q, k, v = self._split_heads(qkv[start : start + length])
                q = q[:, :1] if first_only else q
                y = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
            target = slice(i, i + 1) if first_only else slice(start, start + length)
            out[target] = y.transpose(0, 1).flatten(1)
        return out

    def _split_heads(self, qkv: Tensor) -> Tensor:
        """(rows, 3 · width) -> query, key and value, each (heads, rows, size)."""
        return qkv.view(len(qkv), 3, self._heads, -1).permute(1, 2, 0, 3)

    def _head(self, x: Tensor, adapter: Adapter) -> Tensor:
        """Input of the head (texts, width) -> logits (texts, classes)."""
        first, last = adapter.head
        return F.linear(self._head_activation(F.linear(x.float(), *first)), *last)


def _fuse_block(
    block: nn.Module, family: FastPathFamily, dtype: torch.dtype, device: str
) -> EncoderBlockWeights:
    layers: dict[str, LinearWeights] = {}
    for fused_layer, paths in parts_of_fused_layers(family).items():
        # `weight` and `bias` of an `AdapterLinear` are the effective ones.
        modules: list[Any] = [block.get_submodule(path) for path in paths]
        weight = torch.cat([module.weight.detach() for module in modules]).to(device, dtype)
        biases = [module.bias.detach() for module in modules if module.bias is not None]
        layers[fused_layer] = weight, torch.cat(biases).to(device, dtype) if biases else None
    norms = _layer_norms(block, family, device)
    return EncoderBlockWeights(layers, norms, block.get_submodule(family.activation))


def _pack_for_onednn(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, CPU_BATCH_TOKENS)
    return packed


def _onednn_product(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none"
) -> Tensor:
    """Return activation(x Wᵀ + b); the packed `weight` is (d_out, d_in)."""
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none")
    return y


def _layer_norms(block: nn.Module, family: FastPathFamily, device: str) -> _LayerNorms:
    first, second = (block.get_submodule(name).to(device) for name in family.norms)
    return first, second
