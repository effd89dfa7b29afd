"""The one law that every adapter layer keeps.

In evaluation, `forward(x)` equals a plain linear layer with `effective_weight()` and the base's
bias; before the first update it equals the base layer. Merging rests on this law, so it is written
here, once for every kind.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lora_core.errors.training import NonFiniteWeights


class AdapterLinear(nn.Module, ABC):
    """A frozen linear layer (d_in -> d_out) with a trainable low-rank adapter beside it.

    A has shape (r, d_in) and B has shape (d_out, r), both float32.
    """

    def __init__(self, base: nn.Linear, *, r: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.r = r
        self.alpha = alpha
        self.dropout = nn.Dropout(dropout)
        self.A = nn.Parameter(torch.empty(r, base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, r))
        self._original: Tensor | None = None  # the base weight while the adapter is merged into it
        self.draw_A()

    @staticmethod
    @abstractmethod
    def scale_of(alpha: float, r: int) -> float:
        """The factor before B A, for this alpha and rank."""

    @property
    def scale(self) -> float:
        """The factor before B A."""
        return self.scale_of(self.alpha, self.r)

    @abstractmethod
    def draw_A(self) -> None:
        """Fill A with random numbers. B is zero already, so that the layer starts as its base."""

    @abstractmethod
    def effective_weight(self) -> Tensor:
        """The weight (d_out, d_in) that this layer acts with, in float32.

        Inside autocast B A is rounded to its type: merge outside.
        """

    @abstractmethod
    def adapted(self, x: Tensor) -> Tensor:
        """The output (…, d_out) with the adapter beside the base."""

    def adapter_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the adapter adds to the base, all of it saved.

        All of it trains, unless a variant freezes a part where it makes it.
        """
        yield from self.named_parameters(recurse=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, d_in) -> (…, d_out)."""
        return self.base(x) if self.merged else self.adapted(x)

    @property
    def applies_dropout(self) -> bool:
        """Whether the adapter now sees less of x than the base does."""
        return self.training and self.dropout.p > 0 and not self.merged

    @property
    def weight(self) -> Tensor:
        """What `forward` multiplies by, (d_out, d_in), unless the adapter drops some of x."""
        return self.base.weight if self.merged else self.effective_weight()

    @property
    def bias(self) -> Tensor | None:
        """What `forward` adds, (d_out,)."""
        return self.base.bias

    @property
    def original_weight(self) -> Tensor:
        """The base weight (d_out, d_in) as it was before any merge."""
        return self.base.weight if self._original is None else self._original

    @property
    def merged(self) -> bool:
        return self._original is not None

    @torch.no_grad()
    def merge(self) -> None:
        """Put the effective weight into the base and keep the original.

        Raises `NonFiniteWeights`; then nothing has changed.
        """
        if self.merged:
            return
        weight = self.effective_weight()
        if not torch.isfinite(weight).all():
            raise NonFiniteWeights(module=type(self).__name__)
        self._original = self.base.weight.data
        self.base.weight.data = weight.to(self._original.dtype)

    def unmerge(self) -> None:
        """Put the original weight back, bit for bit."""
        if self._original is not None:
            self.base.weight.data = self._original
            self._original = None
