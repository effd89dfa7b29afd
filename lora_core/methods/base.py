"""What a fine-tuning method decides: which parameters train, and so which are saved."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lora_core.adapters import adapters
from lora_core.compatibility import Census
from lora_core.encoders.base import EncoderFamily


def saved_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """By name, all that trains, and what an adapter has drawn at random and keeps as it is."""
    drawn = {
        f"{name}.{part}"
        for name, adapter in adapters(model).items()
        for part, _ in adapter.adapter_parameters()
    }
    return {n: p for n, p in model.named_parameters() if p.requires_grad or n in drawn}


class Method(ABC):
    """Prepares a model; afterwards exactly the parameters with `requires_grad` train."""

    @abstractmethod
    def prepare(self, model: nn.Module, family: EncoderFamily) -> None:
        """Freeze, unfreeze, inject."""

    def census(self, model: nn.Module) -> Census:
        """Count parameters after `prepare`."""
        sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
        return Census(
            trainable=sum(n for n, trains in sizes if trains), total=sum(n for n, _ in sizes)
        )

    def state(self, model: nn.Module) -> dict[str, Tensor]:
        """A copy of every parameter of `saved_parameters`."""
        return {name: p.detach().clone() for name, p in saved_parameters(model).items()}

    @torch.no_grad()
    def restore(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Write such a copy back. Raises `KeyError` unless the names are the same."""
        own = saved_parameters(model)
        if odd := own.keys() ^ state.keys():
            raise KeyError(f"state and model differ in {sorted(odd)[0]}")
        for name, parameter in own.items():
            parameter.copy_(state[name])
