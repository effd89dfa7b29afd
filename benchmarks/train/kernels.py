"""The kernels that a step of `lora_qv` needs, at their shapes, one after the other.

Left out, so that their sum is rather too small: whatever the last block computes for its one row of
a text, the head, the norms of gradients, the optimizer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.benchmark import Timer

from lora_core.compatibility import EncoderShape
from lora_core.fast import unfused_attention


@dataclass(frozen=True)
class Kernel:
    """One call, and how often a step makes it."""

    name: str
    times: int
    run: Callable[[], object]

    def seconds(self, measured: float) -> float:
        """Of all its calls in a step: the median of one, timed alone for `measured` seconds."""
        timer = Timer("run()", globals={"run": self.run}, num_threads=torch.get_num_threads())
        return self.times * timer.blocked_autorange(min_run_time=measured).median


def kernels(
    shape: EncoderShape, rank: int, texts: int, length: int, dtype: torch.dtype
) -> Iterator[Kernel]:
    """All of a step over `texts` texts of `length` tokens each, forward and backward."""
    d, f, n, full_blocks = shape.width, shape.feed_forward, texts * length, shape.layers - 1
    # Every block but the last has four d x d layers and both of the feed-forward network. No
    # gradient leaves query, key and value of the first.
    square, square_back = 4 * full_blocks, 4 * full_blocks - 3
    yield from _linear("d x d", (n, d, d), square, square_back, dtype)
    yield from _linear("d x f", (n, d, f), full_blocks, full_blocks, dtype)
    yield from _linear("f x d", (n, f, d), full_blocks, full_blocks, dtype)
    yield from _adapters((n, d, rank), 2 * full_blocks, dtype)
    yield from _attention((texts, length, shape.heads, d // shape.heads), full_blocks, dtype)
    yield from _gelu((n, f), full_blocks, dtype)
    yield from _layer_norm(
        (n, d), 2 * full_blocks + 1, 2 * full_blocks, dtype
    )  # embeddings: forward only


def _linear(
    name: str, sizes: tuple[int, int, int], forward: int, backward: int, dtype: torch.dtype
) -> Iterator[Kernel]:
    """(n, i) times (i, o), and the gradient of the input; frozen weights have none."""
    n, i, o = sizes
    x, w, b = _draw(n, i, dtype=dtype), _draw(o, i, dtype=dtype), _draw(o, dtype=dtype)
    dy = _draw(n, o, dtype=dtype)
    yield Kernel(f"linear {name} forward", forward, lambda: F.linear(x, w, b))
    yield Kernel(f"linear {name} backward", backward, lambda: torch.mm(dy, w))


def _adapters(sizes: tuple[int, int, int], times: int, dtype: torch.dtype) -> Iterator[Kernel]:
    """The gradients of A (r, d) and B (d, r): with the adapter merged forward, four thin ones."""
    n, d, r = sizes
    x, dy = _draw(n, d, dtype=dtype), _draw(n, d, dtype=dtype)
    a, b = _draw(r, d, dtype=dtype), _draw(d, r, dtype=dtype)

    def gradients() -> tuple[Tensor, Tensor]:
        return torch.mm(torch.mm(dy, b).T, x), torch.mm(dy.T, torch.mm(x, a.T))

    yield Kernel("adapters backward", times, gradients)


def _attention(
    sizes: tuple[int, int, int, int], times: int, dtype: torch.dtype
) -> Iterator[Kernel]:
    """Products and softmax of (texts, length, heads, size), as the model lays them out."""
    q, k, v, dy = (_draw(*sizes, dtype=dtype).transpose(1, 2) for _ in range(4))
    attend = F.scaled_dot_product_attention
    if unfused_attention.is_faster("cpu", "bf16" if dtype == torch.bfloat16 else "fp32"):
        attend = _unfused
    yield Kernel("attention forward", times, lambda: attend(q, k, v))
    leaves = [each.detach().requires_grad_() for each in (q, k, v)]
    y = attend(leaves[0], leaves[1], leaves[2])
    yield Kernel("attention backward", times, _backward(y, leaves, dy))


def _unfused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return unfused_attention.attention_forward(nn.Identity(), q, k, v, None)[0].transpose(1, 2)


def _gelu(sizes: tuple[int, int], times: int, dtype: torch.dtype) -> Iterator[Kernel]:
    x, dy = _draw(*sizes, dtype=dtype), _draw(*sizes, dtype=dtype)
    yield Kernel("gelu forward", times, lambda: F.gelu(x))
    leaf = x.detach().requires_grad_()
    yield Kernel("gelu backward", times, _backward(F.gelu(leaf), [leaf], dy))


def _layer_norm(
    sizes: tuple[int, int], forward: int, backward: int, dtype: torch.dtype
) -> Iterator[Kernel]:
    """The gradient is that of the input alone: gain and bias are frozen."""
    x, dy = _draw(*sizes, dtype=dtype), _draw(*sizes, dtype=dtype)
    width = sizes[-1:]
    gain, bias = torch.ones(width, dtype=dtype), torch.zeros(width, dtype=dtype)
    yield Kernel("layer norm forward", forward, lambda: F.layer_norm(x, width, gain, bias))
    leaf = x.detach().requires_grad_()
    y = F.layer_norm(leaf, width, gain, bias)
    yield Kernel("layer norm backward", backward, _backward(y, [leaf], dy))


def _backward(y: Tensor, inputs: list[Tensor], dy: Tensor) -> Callable[[], object]:
    return lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)


def _draw(*sizes: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(sizes).to(dtype)
