"""The base class of all adapter layers.

Invariant, for every variant: in evaluation mode, `forward(x)` equals a plain linear layer with
`effective_weight()` and the base layer's bias. Before the first update it equals the base layer.
Merging relies on this invariant.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lora_core.errors.training import NonFiniteMergedWeights


class AdapterLinear(nn.Module, ABC):
    """A frozen linear layer (d_in -> d_out) with a trainable low-rank adapter.

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
        self.init_A()

    @staticmethod
    @abstractmethod
    def compute_scale(alpha: float, r: int) -> float:
        """Return the factor of B A for this alpha and rank."""

    @property
    def scale(self) -> float:
        """The factor of B A."""
        return self.compute_scale(self.alpha, self.r)

    @abstractmethod
    def init_A(self) -> None:
        """Fill A with random numbers. B is zero, so the layer starts out equal to its base."""

    @abstractmethod
    def effective_weight(self) -> Tensor:
        """Return the weight (d_out, d_in) that this layer multiplies by, in float32.

        Under autocast, B A is rounded to the autocast type: merge outside of it.
        """

    @abstractmethod
    def merged_weight(self) -> Tensor:
        """Return the effective weight (d_out, d_in) in float32, on the CPU, for merging.

        It has the same bits on every processor, because it consists of elementwise operations in a
        fixed order, each of which IEEE 754 rounds exactly. The sums inside a matrix product are in
        an order that depends on the processor.
        """

    @abstractmethod
    def forward_with_adapter(self, x: Tensor) -> Tensor:
        """Return the output (…, d_out) of the base layer and the adapter, not merged."""

    def named_adapter_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the names and parameters that the adapter adds to the base. All of them are saved.

        All of them train, unless a variant freezes some when it creates them.
        """
        yield from self.named_parameters(recurse=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, d_in) -> (…, d_out)."""
        return self.base(x) if self.merged else self.forward_with_adapter(x)

    @property
    def applies_dropout(self) -> bool:
        """Whether the adapter's input currently goes through dropout, unlike the base's."""
        return self.training and self.dropout.p > 0 and not self.merged

    @property
    def weight(self) -> Tensor:
        """The effective weight (d_out, d_in), by which `forward` multiplies, apart from dropout."""
        return self.base.weight if self.merged else self.effective_weight()

    @property
    def bias(self) -> Tensor | None:
        """The bias (d_out,) that `forward` adds."""
        return self.base.bias

    @property
    def original_weight(self) -> Tensor:
        """The base weight (d_out, d_in) without the adapter."""
        return self.base.weight if self._original is None else self._original

    @property
    def merged(self) -> bool:
        return self._original is not None

    @torch.no_grad()
    def merge(self) -> None:
        """Replace the base weight by the effective weight, and keep the original.

        Raises `NonFiniteMergedWeights`; the layer is then unchanged.
        """
        if self.merged:
            return
        weight = self.merged_weight()
        if not torch.isfinite(weight).all():
            raise NonFiniteMergedWeights(module=type(self).__name__)
        self._original = self.base.weight.data
        self.base.weight.data = weight.to(self._original)

    def unmerge(self) -> None:
        """Restore the original base weight, bit for bit."""
        if self._original is not None:
            self.base.weight.data = self._original
            self._original = None
