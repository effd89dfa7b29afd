"""DoRA: the length of each output row is learned apart from its direction.

y = m · (W + scale · B A) x / ||W + scale · B A|| + b

(Liu et al. 2024, arXiv 2402.09353, equation 5.) The paper speaks of the norm of each column; it is
that of each row of torch's (d_out, d_in), here as in the authors' code and in PEFT.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_core.layers.lora import LoraLinear


class DoraLinear(LoraLinear):
    """LoRA on the direction, and a magnitude m (d_out,) that starts at the row norms of W."""

    def __init__(self, base: nn.Linear, *, r: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__(base, r=r, alpha=alpha, dropout=dropout)
        self.magnitude = nn.Parameter(torch.linalg.vector_norm(base.weight.detach().float(), dim=1))

    def row_scale(self) -> Tensor:
        """m / ||W + scale · B A||, shape (d_out,).

        The norm counts as a constant in the backward pass (section 4.3 of the paper).
        """
        row_norm: Tensor = torch.linalg.vector_norm(super().effective_weight().detach(), dim=1)
        return self.magnitude / row_norm

    def adapted(self, x: Tensor) -> Tensor:
        direction = F.linear(x, self.base.weight) + self.low_rank(x)
        y = self.row_scale() * direction
        return y if self.base.bias is None else y + self.base.bias

    def effective_weight(self) -> Tensor:
        return self.row_scale()[:, None] * super().effective_weight()
