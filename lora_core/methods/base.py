"""What a fine-tuning method decides: which parameters train, and so which are saved."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lora_core.encoders.base import EncoderFamily
from lora_core.fit import Census


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
        """A copy of every trained parameter, by name."""
        return {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }

    @torch.no_grad()
    def restore(self, model: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Write such a copy back. Raises `KeyError` unless the names are the same."""
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if odd := trained.keys() ^ state.keys():
            raise KeyError(f"state and model differ in {sorted(odd)[0]}")
        for name, parameter in trained.items():
            parameter.copy_(state[name])
