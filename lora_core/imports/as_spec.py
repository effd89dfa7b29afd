"""Adapters that are there to the description that makes them."""

from pydantic import ValidationError
from torch import nn

from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks
from lora_core.inject import adapters
from lora_core.specs.method import Head, LoraSpec, Role, Variant


def as_spec(
    model: nn.Module, family: EncoderFamily, variant: Variant, dropout: float
) -> LoraSpec | None:
    """The spec that makes exactly the adapters of this model.

    None if there is none: they differ in rank or scale, or lie on other layers than those of some
    roles in some blocks.
    """
    found = adapters(model)
    count = len(blocks(model, family))
    places = {
        f"{family.block_list}.{i}.{path}": (i, role)
        for i in range(count)
        for role, paths in family.roles.items()
        for path in paths
    }
    layers = {places[name][0] for name in found if name in places}
    roles = {places[name][1] for name in found if name in places}
    described = {name for name, (i, role) in places.items() if i in layers and role in roles}
    kinds = {(adapter.r, adapter.alpha) for adapter in found.values()}
    if described != found.keys() or len(kinds) != 1:
        return None
    [(r, alpha)] = kinds
    try:
        return LoraSpec(
            variant=variant,
            r=r,
            alpha=alpha,
            dropout=dropout,
            targets=tuple(role for role in Role if role in roles),
            layers=None if len(layers) == count else tuple(sorted(layers)),
            head=Head.TRAIN,
        )
    except ValidationError:  # beyond what a run may ask for
        return None
