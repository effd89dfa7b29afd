"""Put adapters beside the linear layers that a LoRA spec names."""

from torch import nn

from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import learned_blocks, linear, linears
from lora_core.errors.spec import LayerOutOfRange, RankTooLarge
from lora_core.errors.training import NonFiniteWeights
from lora_core.layers import VARIANTS
from lora_core.layers.base import AdapterLinear
from lora_core.specs.method import Head, LoraSpec


def inject(model: nn.Module, family: EncoderFamily, spec: LoraSpec) -> list[str]:
    """Replace every target by an adapter layer around it, and say which, in block order.

    Raises `RoleNotFound`, `LayerOutOfRange`, `RankTooLarge`; then nothing has been replaced.
    """
    found = learned_blocks(model, family)
    layers = range(len(found)) if spec.layers is None else sorted(spec.layers)
    targets: dict[str, nn.Linear] = {}
    for layer in layers:
        if layer >= len(found):
            raise LayerOutOfRange(layer=layer, count=len(found), last=len(found) - 1)
        for role in spec.targets:
            for path, base in linears(found[layer], family, role):
                targets[f"{family.block_list}.{layer}.{path}"] = base
    for name, base in targets.items():
        d_out, d_in = base.weight.shape
        if spec.r > min(d_in, d_out):
            raise RankTooLarge(
                r=spec.r, module=name, d_in=d_in, d_out=d_out, limit=min(d_in, d_out)
            )

    if spec.head is Head.LORA:
        targets |= {name: linear(model, name) for name in family.head}
    for name, base in targets.items():
        # More rank than the smaller side could express nothing more: the last layer has one output
        # per class. A smaller r also changes its scale, such as alpha / r.
        r = min(spec.r, base.in_features, base.out_features)
        adapter = VARIANTS[spec.variant](base, r=r, alpha=spec.alpha, dropout=spec.dropout)
        model.set_submodule(name, adapter.to(base.weight.device))
    return list(targets)


def adapters(model: nn.Module) -> dict[str, AdapterLinear]:
    """Every adapter layer of a model, by path."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, AdapterLinear)
    }


# MERGED lora_core.adapters
# Turn a model with adapters into a plain one.


def merge_adapters(model: nn.Module) -> None:
    """Merge every adapter into its base layer and put that layer back in its place.

    Raises `NonFiniteWeights` before any layer has been replaced.
    """
    found = adapters(model)
    for name, adapter in found.items():
        try:
            adapter.merge()
        except NonFiniteWeights as error:
            for merged in found.values():
                merged.unmerge()
            raise NonFiniteWeights(module=name) from error
    for name, adapter in found.items():
        model.set_submodule(name, adapter.base)
