"""LoRA and its variants: y = W x + b + scale · B (A x).

(Hu et al. 2021, arXiv 2106.09685, equation 3.)
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_core.layers.base import AdapterLinear


class LoraLinear(AdapterLinear):
    """LoRA as in the paper: scale = alpha / r."""

    @staticmethod
    def compute_scale(alpha: float, r: int) -> float:
        return alpha / r

    def init_A(self) -> None:
        # U(-1/√d_in, 1/√d_in), as in loralib and PEFT; the paper uses a Gaussian.
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def forward_with_adapter(self, x: Tensor) -> Tensor:
        """W x + b + scale · B (A x)."""
        y: Tensor = self.base(x)
        return y + self.compute_adapter_output(x)

    def compute_adapter_output(self, x: Tensor) -> Tensor:
        """scale · B (A x): (…, d_in) -> (…, r) -> (…, d_out). Scaled at (…, r), the smallest."""
        return F.linear(self.scale * F.linear(self.dropout(x), self.A), self.B)

    def effective_weight(self) -> Tensor:
        return self.original_weight.float() + self.scale * (self.B @ self.A)

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        update = torch.zeros(self.base.weight.shape)
        for column, row in zip(self.B.cpu().t(), self.A.cpu(), strict=True):
            update += torch.outer(column, row)
        return self.original_weight.float().cpu() + self.scale * update


class RsLoraLinear(LoraLinear):
    """Rank-stabilized LoRA: scale = alpha / sqrt(r)  (Kalajdzievski 2023, arXiv 2312.03732)."""

    @staticmethod
    def compute_scale(alpha: float, r: int) -> float:
        return alpha / math.sqrt(r)


class LoraFaLinear(LoraLinear):
    """LoRA with frozen A: only B trains  (LoRA-FA, Zhang et al. 2023, arXiv 2308.03303)."""

    def init_A(self) -> None:
        super().init_A()
        self.A.requires_grad_(False)


class AlphaScaledLoraLinear(LoraLinear):
    """The convention of the "LoRA from scratch" lessons: scale = alpha, A ~ N(0, 1/r)."""

    @staticmethod
    def compute_scale(alpha: float, r: int) -> float:  # noqa: ARG004
        return alpha

    def init_A(self) -> None:
        nn.init.normal_(self.A, std=1 / math.sqrt(self.r))


class DoraLinear(LoraLinear):
    """DoRA: the magnitude m (d_out,) of each output row is learned apart from its direction.

    y = m · (W + scale · B A) x / ||W + scale · B A|| + b, and m starts at the row norms of W.

    (Liu et al. 2024, arXiv 2402.09353, equation 5.) The paper normalizes columns; those are the
    rows of torch's (d_out, d_in) weights, here as in the authors' code and in PEFT. Dropout, in
    training, applies to x in B A x alone; in theirs also to that in (m / ||…|| - 1) · W x.
    """

    def __init__(self, base: nn.Linear, *, r: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__(base, r=r, alpha=alpha, dropout=dropout)
        self.magnitude = nn.Parameter(torch.linalg.vector_norm(base.weight.detach().float(), dim=1))

    def row_scale(self) -> Tensor:
        """m / ||W + scale · B A||, shape (d_out,).

        The norm is treated as a constant in the backward pass (section 4.3 of the paper).
        """
        row_norm: Tensor = torch.linalg.vector_norm(super().effective_weight().detach(), dim=1)
        return self.magnitude / row_norm

    def forward_with_adapter(self, x: Tensor) -> Tensor:
        direction = F.linear(x, self.base.weight) + self.compute_adapter_output(x)
        y = self.row_scale() * direction
        return y if self.base.bias is None else y + self.base.bias

    def effective_weight(self) -> Tensor:
        return self.row_scale()[:, None] * super().effective_weight()

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        direction = super().merged_weight()
        return (self.magnitude.cpu() / _row_norms(direction))[:, None] * direction


def _row_norms(weight: Tensor) -> Tensor:
    """Return the norms (rows,) of the rows, with the same bits on every processor.

    The squares of float32 numbers are exact in float64. They are added in pairs, half to half.
    """
    squares = weight.double().square()
    while (width := squares.shape[1]) > 1:
        half = width // 2
        odd = squares[:, 2 * half :]  # the last column, if the width is odd
        squares = torch.cat([squares[:, :half] + squares[:, half : 2 * half], odd], dim=1)
    return squares[:, 0].sqrt().float()
