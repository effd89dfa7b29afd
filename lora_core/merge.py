"""Turn a model with adapters into a plain one."""

from torch import nn

from lora_core.errors.training import NonFiniteWeights
from lora_core.inject import adapters


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
