"""The tensors of a PEFT adapter in their places in a model."""

import torch
from torch import Tensor, nn

from lora_core.encoders.base import EncoderFamily
from lora_core.errors.adapter import AdapterShape, AdapterTensors
from lora_core.inject import adapters
from lora_core.layers import VARIANTS
from lora_core.peft_format import MAGNITUDE, PREFIX, A, AdapterConfig, B
from lora_core.specs.method import Variant

_PARTS = {"A": A, "B": B, "magnitude": MAGNITUDE}


def attach(
    model: nn.Module,
    family: EncoderFamily,
    config: AdapterConfig,
    tensors: dict[str, Tensor],
    missing: set[str],
) -> bool:
    """Put adapters beside their layers, and what comes in full in its place.

    `missing`: layers of the head that the base does not have. Adapters on the head are merged,
    as an artifact keeps a trained head in full. Says whether only adapters and the head came.

    Raises `AdapterTensors` if a tensor is left over or not there, `AdapterShape`.
    """
    left = dict(tensors)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and config.adapts(name):
            _adapt(model, name, layer, config, left)
    for name, adapter in adapters(model).items():
        if name in family.head:
            adapter.merge()
            model.set_submodule(name, adapter.base)
    parameters = dict(model.named_parameters())
    for name, tensor in left.items():
        if name not in parameters:
            raise AdapterTensors(problem="unexpected", names=PREFIX + name)
        _copy(parameters[name], tensor, name)
    if absent := {name for name in missing if f"{name}.weight" not in left}:
        raise AdapterTensors(problem="missing, here and in the base", names=", ".join(absent))
    return all(name.rpartition(".")[0] in family.head for name in left)


def _adapt(
    model: nn.Module, name: str, layer: nn.Linear, config: AdapterConfig, left: dict[str, Tensor]
) -> None:
    r, alpha = config.rank(name), config.alpha(name)
    if config.variant is Variant.DORA and config.use_rslora:
        alpha *= r**0.5  # the scale of DoRA is alpha / r here
    adapter = VARIANTS[config.variant](layer, r=r, alpha=alpha, dropout=config.lora_dropout)
    for part, parameter in adapter.adapter_parameters():
        key = f"{name}.{_PARTS[part]}"
        if key not in left:
            raise AdapterTensors(problem="missing", names=PREFIX + key)
        _copy(parameter, left.pop(key), key)
    model.set_submodule(name, adapter.eval())


@torch.no_grad()
def _copy(parameter: Tensor, value: Tensor, name: str) -> None:
    if parameter.shape != value.shape:
        raise AdapterShape(
            tensor=PREFIX + name, found=list(value.shape), expected=list(parameter.shape)
        )
    parameter.copy_(value)
