"""Where the texts of a batch lie: one after the other, those with the same adapter together."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

from lora_core import compatibility
from lora_core.data.batching import padded_length
from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks, head_activation, is_pooled, learned_blocks
from lora_core.encoders.pooling import SCALE
from lora_core.fast.unfused_attention import STEP
from lora_core.inference.adapter import PIECES, Adapter, Dense
from lora_core.inference.attention import LONGEST, Unfused

T = TypeVar("T")
Rows = Literal["texts", "tokens"]  # what there is a row for


class Layout:
    """Made from the lengths of texts in tokens, and the adapter of each.

    The rows of each adapter, and those of all, are a multiple of `step`; some are for nobody. From
    the start of each text there are at least as many rows as its length rounded up.
    """

    def __init__(self, lengths: Sequence[int], adapters: Sequence[Adapter], step: int = 1) -> None:
        self.order = sorted(range(len(lengths)), key=lambda i: id(adapters[i]))
        self.lengths = [lengths[i] for i in self.order]
        self.starts: list[int] = []
        self._texts: list[tuple[slice, Adapter]] = []
        self._tokens: list[tuple[slice, Adapter]] = []
        row = first = 0
        for adapter, same in groupby(adapters[i] for i in self.order):
            after, begin = first + len(list(same)), row
            for length in self.lengths[first:after]:
                self.starts.append(row)
                row += length
            row = padded_length(row, step)
            self._texts.append((slice(first, after), adapter))
            self._tokens.append((slice(begin, row), adapter))
            first = after
        self.rows = padded_length(self.starts[-1] + padded_length(self.lengths[-1], step), step)

    def groups(self, *, of: Rows) -> list[tuple[slice, Adapter]]:
        """Which rows belong to which adapter."""
        return self._texts if of == "texts" else self._tokens

    def back(self, rows: Sequence[T]) -> list[T]:
        """One of each text, in the order in which the texts were given."""
        found = dict(zip(self.order, rows, strict=True))
        return [found[i] for i in range(len(rows))]


# MERGED lora_core.inference.network
# An encoder for answering: texts lie one after the other, and each has its own adapter.
#
# The same function as the classifiers of transformers, without what inference does not need: no
# padding, query, key and value are one product, attention looks at one text at a time, and the
# last block computes the first token of each text, which is all that a head reads.

_Norms = tuple[Any, Any]  # after attention, and after the feed-forward network


@dataclass(frozen=True, eq=False)
class _Block:
    layers: dict[str, Dense]  # by piece
    norms: _Norms
    activation: Any


class Network:
    """The encoder of a model, without its head. Several threads may use it at once.

    Products are computed in `dtype`; what is added up from block to block stays in float32.
    """

    def __init__(
        self, model: PreTrainedModel, family: EncoderFamily, dtype: torch.dtype, device: str = "cpu"
    ) -> None:
        self.dtype, self.device = dtype, device
        by_products = (dtype, device) == (torch.bfloat16, "cpu")
        self._unfused = Unfused() if by_products else None
        self._step = STEP if by_products else 1  # of rows, see `rounded`
        shape = compatibility.read_shape(model.config.to_dict(), base=family.model_type)
        self._heads, self._padding = shape.heads, shape.padding
        self._between = head_activation(family)
        model.eval()
        self._embeddings = model.get_submodule(family.embeddings).to(device)
        learned = learned_blocks(model, family)
        self._blocks = [_block(each, family, dtype, device) for each in learned]
        self._norms = None  # of the block that averages
        if is_pooled(model.config):
            self._norms = _norms(blocks(model, family)[-1], family, device)

    @property
    def name(self) -> str:
        """Such as `torch-bf16`: what computes, and how precisely."""
        by = "torch" if self.device == "cpu" else self.device
        return f"{by}-{'bf16' if self.dtype == torch.bfloat16 else 'fp32'}"

    @property
    def nbytes(self) -> int:
        """Bytes of memory that its weights take."""
        tensors = list(self._embeddings.parameters())
        for block in self._blocks:
            tensors += [t for layer in block.layers.values() for t in layer]
        return sum(t.nbytes for t in tensors)

    def prepared(self, adapter: Adapter) -> Adapter:
        """The adapter in the precision and on the device of this network."""
        return adapter.to(self.dtype, self.device)

    @property
    def batch_tokens(self) -> int:
        """Tokens at once; more make it no faster. One text keeps a core busy, but not a GPU."""
        return 1024 if self.device == "cpu" else 16_384

    @torch.inference_mode()
    def logits(
        self,
        texts: Sequence[Sequence[int]],
        adapters: Sequence[Adapter],
        *,
        threads: int | None = None,
    ) -> list[Tensor]:
        """Token ids of each text -> its logits (classes,) by its adapter, in float32 on the CPU.

        `threads`: cores that the calling thread may use from now on.
        """
        if threads is not None and threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        layout = Layout([len(text) for text in texts], adapters, self._step)
        x = self._embed([texts[i] for i in layout.order], layout)
        for number, block in enumerate(self._blocks):
            x = self._run(number, block, x, layout)
        if self._norms is not None:
            x = self._average(self._norms, x, layout)
        return layout.back([row for first, adapter in layout.groups(of="texts") for row in
                            self._head(x[first], adapter).cpu()])  # fmt: skip

    def _embed(self, texts: Sequence[Sequence[int]], layout: Layout) -> Tensor:
        """(tokens, width), as they lie."""
        ids, places = np.zeros((2, layout.rows), dtype=np.int64)
        for text, start, length in zip(texts, layout.starts, layout.lengths, strict=True):
            ids[start : start + length] = text
            seen = np.not_equal(text, self._padding)  # a text may spell out the padding token
            places[start : start + length] = np.cumsum(seen) * seen + self._padding
        x: Tensor = self._embeddings(
            input_ids=torch.from_numpy(ids)[None].to(self.device),
            position_ids=torch.from_numpy(places)[None].to(self.device),
        )
        return x[0]

    def _run(self, number: int, block: _Block, x: Tensor, layout: Layout) -> Tensor:
        """(tokens, width) -> the same, or (texts, width) in the last block before the head."""
        last = self._norms is None and number == len(self._blocks) - 1
        qkv = self._linear(block, (number, "qkv"), x, layout, of="tokens")
        of: Rows = "texts" if last else "tokens"
        y = self._attend(qkv, layout, first_only=last)
        y = self._linear(block, (number, "projection"), y, layout, of=of)
        x = self._sum(block.norms[0], y, x[layout.starts] if last else x)
        y = self._act(block.activation, self._linear(block, (number, "up"), x, layout, of=of))
        y = self._linear(block, (number, "down"), y, layout, of=of)
        return self._sum(block.norms[1], y, x)

    def _average(self, norms: _Norms, x: Tensor, layout: Layout) -> Tensor:
        """(tokens, width) -> (texts, width): what the block of `encoders/pooling.py` computes."""
        ends = zip(layout.starts, layout.lengths, strict=True)
        means = torch.stack([x[start : start + length].mean(dim=0) for start, length in ends])
        out: Tensor = norms[1](norms[0](SCALE * means + x[layout.starts]))
        return out

    def _sum(self, norm: nn.Module, y: Tensor, x: Tensor) -> Tensor:
        out: Tensor = norm(y + x)
        return out

    def _act(self, activation: nn.Module, y: Tensor) -> Tensor:
        out: Tensor = activation(y)
        return out

    def _linear(
        self, block: _Block, place: tuple[int, str], x: Tensor, layout: Layout, *, of: Rows
    ) -> Tensor:
        x = x.to(self.dtype)
        y = F.linear(x, *block.layers[place[1]])
        for rows, adapter in layout.groups(of=of):
            if (pair := adapter.pairs.get(place)) is not None:
                y[rows].addmm_(x[rows] @ pair.A.t(), pair.B.t())
        return y

    def _attend(self, qkv: Tensor, layout: Layout, *, first_only: bool) -> Tensor:
        """(tokens, 3 · width) -> (tokens or texts, width)."""
        rows = len(layout.lengths) if first_only else len(qkv)
        out = qkv.new_zeros(rows, qkv.shape[1] // 3)
        for i, (start, length) in enumerate(zip(layout.starts, layout.lengths, strict=True)):
            if self._unfused and not first_only and length <= LONGEST:
                q, k, v = self._parts(qkv[start : start + padded_length(length, self._step)])
                y = self._unfused(q, k, v, length)
            else:
                q, k, v = self._parts(qkv[start : start + length])
                q = q[:, :1] if first_only else q
                y = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
            at = slice(i, i + 1) if first_only else slice(start, start + length)
            out[at] = y.transpose(0, 1).flatten(1)
        return out

    def _parts(self, qkv: Tensor) -> Tensor:
        """(rows, 3 · width) -> query, key, value, each (heads, rows, size)."""
        return qkv.view(len(qkv), 3, self._heads, -1).permute(1, 2, 0, 3)

    def _head(self, x: Tensor, adapter: Adapter) -> Tensor:
        """First tokens (texts, width) -> logits (texts, classes)."""
        first, last = adapter.head
        return F.linear(self._between(F.linear(x.float(), *first)), *last)


def _block(block: nn.Module, family: EncoderFamily, dtype: torch.dtype, device: str) -> _Block:
    layers: dict[str, Dense] = {}
    for piece, parts in PIECES.items():
        # Of an `AdapterLinear` weight and bias are the effective ones.
        found: list[Any] = [block.get_submodule(family.roles[role][i]) for role, i in parts]
        weight = torch.cat([each.weight.detach() for each in found])
        bias = torch.cat([each.bias.detach() for each in found])
        layers[piece] = weight.to(device, dtype), bias.to(device, dtype)
    norms = _norms(block, family, device)
    return _Block(layers, norms, block.get_submodule(family.activation))


def _norms(block: nn.Module, family: EncoderFamily, device: str) -> _Norms:
    first, second = (block.get_submodule(name).to(device) for name in family.norms)
    return first, second
