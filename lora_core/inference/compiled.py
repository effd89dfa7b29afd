"""A network in which torch compiles what lies between the products.

Products and attention stay as they are: they are kernels already, and attention goes by the lengths
of the texts, of which there are too many to compile for.
"""

import torch
from transformers import PreTrainedModel

from lora_core.encoders.base import EncoderFamily
from lora_core.inference.network import Network


class CompiledNetwork(Network):
    """Compiles when it is first used, which takes some ten seconds and a compiler of C++."""

    def __init__(
        self, model: PreTrainedModel, family: EncoderFamily, dtype: torch.dtype, device: str = "cpu"
    ) -> None:
        super().__init__(model, family, dtype, device)
        self._sum = torch.compile(super()._sum, dynamic=True)  # type: ignore[method-assign]
        self._act = torch.compile(super()._act, dynamic=True)  # type: ignore[method-assign]

    @property
    def name(self) -> str:
        return super().name.replace("torch", "compiled")
