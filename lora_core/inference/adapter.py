"""What one version adds to a network that it shares with others: low-rank pairs, and its own head.

y = W x + b + B (A x), with the scale in B. Layers of a block that read the same states are one
layer here, so their pairs are one: the rows of A one below the other, B in blocks.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from lora_core.encoders import FAMILIES
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
        """Of memory."""
        tensors = [t for pair in self.pairs.values() for t in (pair.A, pair.B)]
        tensors += [t for layer in self.head for t in layer]
        return sum(t.nbytes for t in tensors)


def spec_of(directory: Path) -> LoraSpec | None:
    """How the adapter of an artifact was made; None if it has none."""
    try:
        facts = json.loads((directory / "adapter.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return LoraSpec.model_validate(facts["method"])


def load_pairs(directory: Path, spec: LoraSpec) -> Pairs:
    """The adapter of an artifact, in float32. Not of DoRA, which also stretches the base."""
    facts = json.loads((directory / "adapter.json").read_text(encoding="utf-8"))
    family = FAMILIES[facts["encoder"]]
    pairs: dict[tuple[int, str], LowRank] = {}
    with safe_open(directory / "adapter.safetensors", "pt") as file:
        names = set(file.keys())
        blocks = {int(name[len(family.block_list) + 1:].split(".")[0]) for name in names
                  if name.startswith(f"{family.block_list}.")}  # fmt: skip
        for block in sorted(blocks):
            for piece, layers in PIECES.items():
                paths = [
                    f"{family.block_list}.{block}.{family.roles[role][i]}" for role, i in layers
                ]
                read = {i: _pair(file, path, spec) for i, path in enumerate(paths)
                        if f"{path}.A" in names}  # fmt: skip
                if read:
                    pairs[block, piece] = _stacked(read, len(layers))
    return pairs


def load_head(directory: Path) -> Head:
    """The layers after the encoder, as `artifact.save_head` wrote them."""
    with safe_open(directory / "head.safetensors", "pt") as file:
        first, last = ((file.get_tensor(f"{name}.weight"), file.get_tensor(f"{name}.bias"))
                       for name in ("first", "last"))  # fmt: skip
    return first, last


def head_of(model: nn.Module, family: EncoderFamily) -> Head:
    """The layers after the encoder."""
    layers: list[Any] = [model.get_submodule(name) for name in family.head]
    first, last = layers
    return ((first.weight.detach().float(), first.bias.detach().float()),
            (last.weight.detach().float(), last.bias.detach().float()))  # fmt: skip


def _pair(file: Any, path: str, spec: LoraSpec) -> LowRank:
    A, B = file.get_tensor(f"{path}.A"), file.get_tensor(f"{path}.B")
    kind = VARIANTS[spec.variant]
    return LowRank(A, kind.scale_of(spec.alpha, len(A)) * B)


def _stacked(pairs: Mapping[int, LowRank], layers: int) -> LowRank:
    """One pair for as many layers of equal width, of which some have none."""
    width = len(next(iter(pairs.values())).B)
    none = torch.zeros(width, 0)
    blocks = (pairs[i].B if i in pairs else none for i in range(layers))
    return LowRank(torch.cat([pair.A for pair in pairs.values()]), torch.block_diag(*blocks))  # type: ignore[no-untyped-call]
