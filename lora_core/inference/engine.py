"""Who computes logits."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from lora_core.inference.adapter import Adapter


class Engine(Protocol):
    """An encoder in memory. Not for two threads at once."""

    @property
    def name(self) -> str:
        """Such as `torch-bf16`: what computes, and how precisely."""
        ...

    @property
    def nbytes(self) -> int:
        """Of memory."""
        ...

    def prepared(self, adapter: Adapter) -> Adapter:
        """As this engine computes with it."""
        ...

    def logits(self, texts: Sequence[Sequence[int]], adapters: Sequence[Adapter]) -> list[Tensor]:
        """Token ids of each text -> its logits (classes,) by its adapter, in float32."""
        ...
