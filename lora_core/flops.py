"""What a token costs, in floating-point operations, from the sizes of its encoder alone.

For h layers of width d with a feed-forward width f, and L the mean length that a token attends to:

    lin = 2h (4d² + 2df)      att = 4h L d      forward = lin + att      full = 3 lin + 3.5 att

The backward pass of the linears costs twice their forward, half of it for the weights, which frozen
layers save; that of attention costs 2.5 times. Nothing flows back below the lowest trained layer,
nor through its query, key and value (6d²). Embeddings and head are too small to count. The last
block is counted whole, though a classifier needs less of it (`encoders/first_token.py`).
"""

from lora_core.compatibility import Shape, adapted
from lora_core.specs.method import BaselineSpec, EncoderMethod, FullSpec, LoraSpec, ProbeSpec


def forward(shape: Shape, *, length: float) -> float:
    """FLOPs a token without training. `length` is E[L²] / E[L] over the texts, in tokens."""
    linears, attention = _parts(shape, length)
    return linears + attention


def training(shape: Shape, method: EncoderMethod, *, length: float) -> float:
    """FLOPs a token for one forward and backward pass."""
    linears, attention = _parts(shape, length)
    into_block = 6 * shape.width**2  # the gradient that the lowest block need not hand down
    match method:
        case FullSpec():
            return 3 * linears + 3.5 * attention
        case ProbeSpec() | BaselineSpec(blocks=0):
            return linears + attention
        case BaselineSpec():
            backward = (1 - frozen_share(shape, method)) * (2 * linears + 2.5 * attention)
            return linears + attention + backward - into_block
        case LoraSpec():
            backward = (1 - frozen_share(shape, method)) * (linears + 2.5 * attention)
            thin = sum(
                min(method.r, d_in, d_out) * (d_in + d_out)
                for d_in, d_out in adapted(shape, method, n_labels=2)
            )
            return linears + attention + backward + 6 * thin - into_block


def frozen_share(shape: Shape, method: EncoderMethod) -> float:
    """The share of the blocks that lie below the lowest one that trains."""
    match method:
        case ProbeSpec():
            return 1.0
        case BaselineSpec(blocks=blocks):
            return 1 - blocks / shape.layers
        case LoraSpec(layers=chosen) if chosen is not None:
            return min(chosen) / shape.layers
        case _:
            return 0.0


def _parts(shape: Shape, length: float) -> tuple[float, float]:
    d, f = shape.width, shape.feed_forward
    return 2 * shape.layers * (4 * d**2 + 2 * d * f), 4 * shape.layers * length * d
