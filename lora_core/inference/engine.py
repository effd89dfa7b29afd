"""Who computes logits."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from lora_core.inference.adapter import Adapter


class Engine(Protocol):
    """An encoder in memory. Several threads may use it at once."""

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

    @property
    def batch_tokens(self) -> int:
        """So many at once are enough."""
        ...

    def logits(
        self,
        texts: Sequence[Sequence[int]],
        adapters: Sequence[Adapter],
        *,
        threads: int | None = None,
    ) -> list[Tensor]:
        """Token ids of each text -> its logits (classes,) by its adapter, in float32.

        `threads`: cores that the calling thread may use from now on.
        """
        ...
