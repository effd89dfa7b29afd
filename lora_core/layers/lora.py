"""LoRA: y = W x + b + scale · B (A x)  (Hu et al. 2021, arXiv 2106.09685, equation 3)."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from lora_core.layers.base import AdapterLinear


class LoraLinear(AdapterLinear):
    """LoRA as in the paper: scale = alpha / r."""

    @staticmethod
    def scale_of(alpha: float, r: int) -> float:
        return alpha / r

    def draw_A(self) -> None:
        # U(-1/√d_in, 1/√d_in), as loralib and PEFT draw it; the paper speaks of a Gaussian.
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def adapted(self, x: Tensor) -> Tensor:
        """W x + b + scale · B (A x)."""
        y: Tensor = self.base(x)
        return y + self.low_rank(x)

    def low_rank(self, x: Tensor) -> Tensor:
        """scale · B (A x): (…, d_in) -> (…, r) -> (…, d_out). Scaled at (…, r), the smallest."""
        return F.linear(self.scale * F.linear(self.dropout(x), self.A), self.B)

    def effective_weight(self) -> Tensor:
        return self.original_weight.float() + self.scale * (self.B @ self.A)


class RsLoraLinear(LoraLinear):
    """Rank-stabilised LoRA: scale = alpha / sqrt(r)  (Kalajdzievski 2023, arXiv 2312.03732)."""

    @staticmethod
    def scale_of(alpha: float, r: int) -> float:
        return alpha / math.sqrt(r)


class LoraFaLinear(LoraLinear):
    """LoRA with frozen A: B alone trains  (LoRA-FA, Zhang et al. 2023, arXiv 2308.03303)."""

    def draw_A(self) -> None:
        super().draw_A()
        self.A.requires_grad_(False)


class UnscaledLinear(LoraLinear):
    """The convention of the "LoRA from scratch" lessons: scale = alpha, A ~ N(0, 1/r)."""

    @staticmethod
    def scale_of(alpha: float, r: int) -> float:  # noqa: ARG004
        return alpha

    def draw_A(self) -> None:
        nn.init.normal_(self.A, std=1 / math.sqrt(self.r))
