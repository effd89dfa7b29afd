"""Gradient checkpointing: what a block computes is not kept for the backward pass but made again.

The same numbers, for one more forward pass, in less memory (Chen et al. 2016, arXiv 1604.06174).
"""

from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks
from lora_core.encoders.stack import frozen_blocks


def recompute(model: nn.Module, family: EncoderFamily) -> None:
    """Let every block that has a backward pass keep its input alone.

    The last block is left out: of that only one token of each text is computed (`first_token.py`).
    """
    found: list[Any] = list(blocks(model, family))
    for block in found[frozen_blocks(model, family) : -1]:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
