"""The floating-point operations that a result needs, whatever a program does beyond them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_core import cost_model
from lora_core.compatibility import read_encoder_shape
from lora_core.specs.method import LoraSpec


def flops_of_review(
    config: Mapping[str, Any], method: LoraSpec, lengths: NDArray[np.int64]
) -> float:
    """FLOPs for one forward and backward pass over a review of the mean length.

    `lengths` are those of all texts, in tokens. Of the last block, which
    `lora_core.cost_model` counts whole, only one row is needed (`fast/first_token.py`):
    2 (4d² + 2df) and 4 L d less a token
    forward, and once, respectively 2.5 times, as much less backward.
    """
    shape = read_encoder_shape(config, base="the base")
    d, f = shape.width, shape.feed_forward
    attended = float((lengths**2).sum() / lengths.sum())
    a_token = cost_model.training_flops_per_token(shape, method, length=attended)
    unneeded = 2 * 2 * (4 * d**2 + 2 * d * f) + 3.5 * 4 * attended * d
    return float(lengths.mean()) * (a_token - unneeded)
