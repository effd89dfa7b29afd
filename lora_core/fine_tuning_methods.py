"""Fine-tuning methods. Each decides which parameters train, and so which are saved."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lora_core.adapters import adapter_layers, inject_adapters
from lora_core.compatibility import ParameterCounts
from lora_core.encoders import pooling
from lora_core.encoders.encoder_parts import pretrained_blocks
from lora_core.encoders.families import EncoderFamily
from lora_core.errors.spec import LayerOutOfRange
from lora_core.specs.method import (
    EncoderMethod,
    FullFineTuningSpec,
    HeadMode,
    LastLayersBaselineSpec,
    LoraSpec,
    ProbeSpec,
)


def named_trainable_and_adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return by name all trainable parameters, and the frozen random parameters of adapters."""
    of_adapters = {
        f"{name}.{part}"
        for name, adapter in adapter_layers(model).items()
        for part, _ in adapter.named_adapter_parameters()
    }
    return {n: p for n, p in model.named_parameters() if p.requires_grad or n in of_adapters}


class FineTuningMethod(ABC):
    """Prepares a model for training: afterwards, its parameters with `requires_grad` train."""

    @abstractmethod
    def prepare(self, model: nn.Module, family: EncoderFamily) -> None:
        """Freeze and unfreeze parameters, and inject adapters, in place."""

    def count_parameters(self, model: nn.Module) -> ParameterCounts:
        """Count parameters. Call it after `prepare`."""
        sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
        return ParameterCounts(
            trainable=sum(n for n, trains in sizes if trains), total=sum(n for n, _ in sizes)
        )

    def state_dict(self, model: nn.Module) -> dict[str, Tensor]:
        """Return a copy of every parameter in `named_trainable_and_adapter_parameters`."""
        return {
            name: p.detach().clone()
            for name, p in named_trainable_and_adapter_parameters(model).items()
        }

    @torch.no_grad()
    def load_state_dict(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Write a `state_dict` back into the model. Raises `KeyError` unless the names match."""
        parameters = named_trainable_and_adapter_parameters(model)
        if mismatched := parameters.keys() ^ state.keys():
            raise KeyError(f"state and model differ in {sorted(mismatched)[0]}")
        for name, parameter in parameters.items():
            parameter.copy_(state[name])


class LoraMethod(FineTuningMethod):
    """LoRA: freeze the encoder and train low-rank adapters and, by default, the head in full."""

    def __init__(self, spec: LoraSpec) -> None:
        self.spec = spec

    def prepare(self, model: nn.Module, family: EncoderFamily) -> None:
        model.requires_grad_(False)
        # New parameters train, except for those that their variant freezes.
        inject_adapters(model, family, self.spec)
        if self.spec.head is HeadMode.TRAIN:
            for name in family.head_module_names:
                model.get_submodule(name).requires_grad_(True)


class FullFineTuningMethod(FineTuningMethod):
    """Full fine-tuning: train every parameter, except for a pooling block."""

    def prepare(self, model: nn.Module, family: EncoderFamily) -> None:
        model.requires_grad_(True)
        pooling.freeze_mean_pooling_block(model, family)


class LastLayersBaselineMethod(FineTuningMethod):
    """The baseline: freeze the encoder and train the head and, if configured, the last blocks."""

    def __init__(self, spec: LastLayersBaselineSpec) -> None:
        self.spec = spec

    def prepare(self, model: nn.Module, family: EncoderFamily) -> None:
        blocks = pretrained_blocks(model, family)
        first = len(blocks) - self.spec.blocks
        if first < 0:
            raise LayerOutOfRange(
                layer=self.spec.blocks - 1, count=len(blocks), last=len(blocks) - 1
            )
        model.requires_grad_(False)
        head = [model.get_submodule(name) for name in family.head_module_names]
        for module in [*blocks[first:], *head]:
            module.requires_grad_(True)


class ProbeMethod(FineTuningMethod):
    """The probe: fit only the last layer of the head, by logistic regression (`training/probe.py`).

    The layer before it is set, not trained.
    """

    def prepare(self, model: nn.Module, family: EncoderFamily) -> None:
        model.requires_grad_(False)
        model.get_submodule(family.head[-1]).requires_grad_(True)


def build_method(spec: EncoderMethod) -> FineTuningMethod:
    """Return the method that a spec describes."""
    match spec:
        case ProbeSpec():
            return ProbeMethod()
        case LastLayersBaselineSpec():
            return LastLayersBaselineMethod(spec)
        case LoraSpec():
            return LoraMethod(spec)
        case FullFineTuningSpec():
            return FullFineTuningMethod()
