"""The weights that one version adds to a shared encoder: LoRA weights and a classification head.

y = W x + b + B (A x), with the LoRA scale multiplied into B. Query, key and value of a block read
the same states and are one layer here ("fused QKV"), so their LoRA weights are fused as well. With
R the sum of the three ranks:

A = [A_q; A_k; A_v]  (R, d_in)    B = diag(B_q, B_k, B_v)  (3 · d_out, R)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lora_core.artifact import HEAD_LAYERS, head_tensors
from lora_core.encoders.families import FastPathFamily
from lora_core.layers import VARIANTS
from lora_core.specs.method import LayerRole, LoraSpec

# Fused layer of a block -> the layers that it is made of, each as (role, index within the role).
FUSED_LAYERS: Mapping[str, Sequence[tuple[LayerRole, int]]] = {
    "qkv": ((LayerRole.QUERY, 0), (LayerRole.KEY, 0), (LayerRole.VALUE, 0)),
    "projection": ((LayerRole.PROJECTION, 0),),
    "up": ((LayerRole.MLP, 0),),
    "down": ((LayerRole.MLP, 1),),
}

LinearWeights = tuple[Tensor, Tensor | None]  # weight (d_out, d_in), bias (d_out,)
HeadWeights = tuple[LinearWeights, ...]  # first layer, in ModernBERT the norm, last layer


@dataclass(frozen=True, eq=False)
class FusedLayerLora:
    """The low-rank update of one fused layer, scale included."""

    A: Tensor  # (R, d_in)
    B: Tensor  # (d_out, R)


LoraByLayer = Mapping[tuple[int, str], FusedLayerLora]  # keys: (block index, fused layer)


@dataclass(frozen=True, eq=False)
class Adapter:
    """LoRA weights and head of one version."""

    lora: LoraByLayer  # empty: the version has an encoder of its own
    head: HeadWeights  # float32

    def to(self, dtype: torch.dtype, device: str) -> "Adapter":
        """Return a copy on `device`: LoRA weights in `dtype`, the head in float32."""
        lora = {key: FusedLayerLora(weights.A.to(device, dtype), weights.B.to(device, dtype))
                for key, weights in self.lora.items()}  # fmt: skip
        head = [(weight.to(device), None if bias is None else bias.to(device))
                for weight, bias in self.head]  # fmt: skip
        return Adapter(lora, tuple(head))

    @property
    def nbytes(self) -> int:
        """Memory of the tensors in bytes."""
        tensors = [t for weights in self.lora.values() for t in (weights.A, weights.B)]
        tensors += [t for layer in self.head for t in layer if t is not None]
        return sum(t.nbytes for t in tensors)


def parts_of_fused_layers(family: FastPathFamily) -> dict[str, list[str]]:
    """Return the layers of a block that each fused layer is made of.

    In some families query, key and value are one layer already.
    """
    return {
        fused_layer: list(dict.fromkeys(family.roles[role][i] for role, i in parts))
        for fused_layer, parts in FUSED_LAYERS.items()
    }


def build_lora_weights(
    spec: LoraSpec, tensors: Mapping[str, Tensor], family: FastPathFamily
) -> LoraByLayer:
    """Build the fused LoRA weights, in float32, from the tensors of `artifact.read_saved_adapter`.

    Not for DoRA, which also scales the rows of the base weight.
    """
    prefix = f"{family.block_list}."
    blocks = {int(name[len(prefix) :].split(".")[0]) for name in tensors if name.startswith(prefix)}
    by_layer: dict[tuple[int, str], FusedLayerLora] = {}
    for block in sorted(blocks):
        for fused_layer, layers in parts_of_fused_layers(family).items():
            paths = [f"{prefix}{block}.{layer}" for layer in layers]
            adapted = {i: _scaled_weights(tensors, path, spec) for i, path in enumerate(paths)
                       if f"{path}.A" in tensors}  # fmt: skip
            if adapted:
                by_layer[block, fused_layer] = _fuse(adapted, len(paths))
    return by_layer


def head_from_model(model: nn.Module, family: FastPathFamily) -> HeadWeights:
    """Return the classification head of a model."""
    return head_from_tensors(head_tensors(model, family))


def head_from_tensors(tensors: Mapping[str, Tensor]) -> HeadWeights:
    """Return the classification head with the tensors of `artifact.head_tensors`."""
    names = [name for name in HEAD_LAYERS if f"{name}.weight" in tensors]
    return tuple((tensors[f"{name}.weight"], tensors.get(f"{name}.bias")) for name in names)


def _scaled_weights(tensors: Mapping[str, Tensor], path: str, spec: LoraSpec) -> FusedLayerLora:
    A, B = tensors[f"{path}.A"], tensors[f"{path}.B"]
    layer_class = VARIANTS[spec.variant]
    return FusedLayerLora(A, layer_class.compute_scale(spec.alpha, len(A)) * B)


def _fuse(adapted: Mapping[int, FusedLayerLora], layers: int) -> FusedLayerLora:
    """Fuse the weights of `layers` layers of equal width: A stacked, B block-diagonal.

    A layer that is missing in `adapted` contributes an empty block.
    """
    width = len(next(iter(adapted.values())).B)
    empty = torch.zeros(width, 0)
    blocks = (adapted[i].B if i in adapted else empty for i in range(layers))
    A = torch.cat([weights.A for weights in adapted.values()])
    return FusedLayerLora(A, torch.block_diag(*blocks))  # type: ignore[no-untyped-call]
