"""Attention of one text from products: for bf16 on a CPU, where heads of 32 make the fused kernel
of torch slow (docs/decisions/0019).
"""

import threading

import torch
from torch import Tensor

LONGEST = 1024  # tokens: of more the probabilities would take much memory


class Unfused(threading.local):
    """softmax(s Q Kᵀ) V, with the probabilities in a buffer that each thread keeps."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, length: int) -> Tensor:
        """Q, K, V (heads, rows, size) -> (heads, length, size).

        Rows after `length` only make up a shape that is known; they change nothing.
        """
        heads, rows, size = q.shape
        if self._buffer.numel() < heads * rows * rows:
            self._buffer = q.new_empty(heads * rows * rows)
        p = self._buffer[: heads * rows * rows].view(heads, rows, rows)
        torch.baddbmm(p, q, k.transpose(1, 2), beta=0, alpha=size**-0.5, out=p)
        p[:, :, length:] = -torch.inf
        torch.softmax(p, dim=-1, out=p)
        return torch.bmm(p, v)[:, :length]
