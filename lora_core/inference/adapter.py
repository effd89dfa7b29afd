"""What one version adds to a network that it shares with others: low-rank pairs, and its own head.

y = W x + b + B (A x), with the scale in B. Query, key and value of a block read the same states and
are one layer here ("fused QKV"), so their pairs are one, with R the sum of their ranks:

A = [A_q; A_k; A_v]  (R, d_in)    B = diag(B_q, B_k, B_v)  (3 · d_out, R)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lora_core.artifact import HEAD, head_tensors
from lora_core.encoders.base import EncoderFamily
from lora_core.layers import VARIANTS
from lora_core.specs.method import LoraSpec, Role

# The layers of a block as they are called here: which of the layers with which role.
PIECES: Mapping[str, Sequence[tuple[Role, int]]] = {
    "qkv": ((Role.QUERY, 0), (Role.KEY, 0), (Role.VALUE, 0)),
    "projection": ((Role.PROJECTION, 0),),
    "up": ((Role.MLP, 0),),
    "down": ((Role.MLP, 1),),
}

Dense = tuple[Tensor, Tensor]  # weight (d_out, d_in), bias (d_out,)
Head = tuple[Dense, Dense]


@dataclass(frozen=True, eq=False)
class LowRank:
    """What is added to one layer."""

    A: Tensor  # (R, d_in)
    B: Tensor  # (d_out, R)


Pairs = Mapping[tuple[int, str], LowRank]  # by block and piece


@dataclass(frozen=True, eq=False)
class Adapter:
    """One version on a network."""

    pairs: Pairs  # none: the network is its own
    head: Head  # float32

    def to(self, dtype: torch.dtype, device: str) -> "Adapter":
        """Its pairs in the precision of a network, its head in float32."""
        pairs = {at: LowRank(pair.A.to(device, dtype), pair.B.to(device, dtype))
                 for at, pair in self.pairs.items()}  # fmt: skip
        first, last = ((weight.to(device), bias.to(device)) for weight, bias in self.head)
        return Adapter(pairs, (first, last))

    @property
    def nbytes(self) -> int:
        """Bytes of memory that its tensors take."""
        tensors = [t for pair in self.pairs.values() for t in (pair.A, pair.B)]
        tensors += [t for layer in self.head for t in layer]
        return sum(t.nbytes for t in tensors)


def pairs_of(spec: LoraSpec, tensors: Mapping[str, Tensor], family: EncoderFamily) -> Pairs:
    """The pairs of an adapter as `artifact.load_adapter` gives it, in float32.

    Not of DoRA, which also scales the rows of the base.
    """
    start = f"{family.block_list}."
    blocks = {int(name[len(start) :].split(".")[0]) for name in tensors if name.startswith(start)}
    pairs: dict[tuple[int, str], LowRank] = {}
    for block in sorted(blocks):
        for piece, layers in PIECES.items():
            paths = [f"{start}{block}.{family.roles[role][i]}" for role, i in layers]
            found = {i: _pair(tensors, path, spec) for i, path in enumerate(paths)
                     if f"{path}.A" in tensors}  # fmt: skip
            if found:
                pairs[block, piece] = _stacked(found, len(layers))
    return pairs


def load_head(directory: Path) -> Head:
    """The layers after the encoder, as `artifact.save_head` wrote them."""
    return _head(load_file(directory / "head.safetensors"))


def head_of(model: nn.Module, family: EncoderFamily) -> Head:
    """The layers after the encoder of a model."""
    return _head(head_tensors(model, family))


def _head(tensors: Mapping[str, Tensor]) -> Head:
    first, last = ((tensors[f"{name}.weight"], tensors[f"{name}.bias"]) for name in HEAD)
    return first, last


def _pair(tensors: Mapping[str, Tensor], path: str, spec: LoraSpec) -> LowRank:
    A, B = tensors[f"{path}.A"], tensors[f"{path}.B"]
    kind = VARIANTS[spec.variant]
    return LowRank(A, kind.scale_of(spec.alpha, len(A)) * B)


def _stacked(pairs: Mapping[int, LowRank], layers: int) -> LowRank:
    """One pair for so many layers of equal width, some without one: A stacked, B in blocks."""
    width = len(next(iter(pairs.values())).B)
    none = torch.zeros(width, 0)
    blocks = (pairs[i].B if i in pairs else none for i in range(layers))
    return LowRank(torch.cat([pair.A for pair in pairs.values()]), torch.block_diag(*blocks))  # type: ignore[no-untyped-call]
