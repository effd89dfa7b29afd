"""Inject LoRA adapters into a model, and merge them back into its weights."""

from torch import nn

from lora_core.encoders.encoder_parts import (
    get_linear_submodule,
    linear_layers_with_role,
    pretrained_blocks,
)
from lora_core.encoders.families import EncoderFamily
from lora_core.errors.spec import LayerOutOfRange, RankTooLarge
from lora_core.errors.training import NonFiniteMergedWeights
from lora_core.layers import VARIANTS
from lora_core.layers.base import AdapterLinear
from lora_core.specs.method import HeadMode, LoraSpec


def inject_adapters(model: nn.Module, family: EncoderFamily, spec: LoraSpec) -> list[str]:
    """Wrap every target layer in an adapter layer, and return the targets' paths in block order.

    Raises `LayerRoleNotFound`, `LayerRolesFused`, `LayerOutOfRange`, `RankTooLarge`; the model is
    then unchanged.
    """
    family.check_fused_roles(spec.targets)
    blocks = pretrained_blocks(model, family)
    layers = range(len(blocks)) if spec.layers is None else sorted(spec.layers)
    targets: dict[str, nn.Linear] = {}
    for layer in layers:
        if layer >= len(blocks):
            raise LayerOutOfRange(layer=layer, count=len(blocks), last=len(blocks) - 1)
        for role in spec.targets:
            for path, base in linear_layers_with_role(blocks[layer], family, role):
                targets[f"{family.block_list}.{layer}.{path}"] = base
    for name, base in targets.items():
        d_out, d_in = base.weight.shape
        if spec.r > min(d_in, d_out):
            raise RankTooLarge(
                r=spec.r, module=name, d_in=d_in, d_out=d_out, limit=min(d_in, d_out)
            )

    if spec.head is HeadMode.LORA:
        targets |= {name: get_linear_submodule(model, name) for name in family.head}
    for name, base in targets.items():
        # A rank above the smaller side adds nothing: the last layer has one output per class.
        # A smaller r also changes the scale, such as alpha / r.
        r = min(spec.r, base.in_features, base.out_features)
        adapter = VARIANTS[spec.variant](base, r=r, alpha=spec.alpha, dropout=spec.dropout)
        model.set_submodule(name, adapter.to(base.weight.device))
    return list(targets)


def adapter_layers(model: nn.Module) -> dict[str, AdapterLinear]:
    """Return every adapter layer of a model, by path."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, AdapterLinear)
    }


def merge_adapters(model: nn.Module) -> None:
    """Merge every adapter into its base layer, and put the base layer back in its place.

    Raises `NonFiniteMergedWeights`; no layer has then been replaced.
    """
    adapters = adapter_layers(model)
    for name, adapter in adapters.items():
        try:
            adapter.merge()
        except NonFiniteMergedWeights as error:
            for merged in adapters.values():
                merged.unmerge()
            raise NonFiniteMergedWeights(module=name) from error
    for name, adapter in adapters.items():
        model.set_submodule(name, adapter.base)
