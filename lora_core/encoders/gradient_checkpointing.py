"""Gradient checkpointing: activations of a block are recomputed in the backward pass, not stored.

The results are identical, for one more forward pass, with less memory (Chen et al. 2016, arXiv
1604.06174).
"""

from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from lora_core.encoders.families import EncoderFamily
from lora_core.encoders.modules import blocks, count_frozen_blocks


def enable_gradient_checkpointing(model: nn.Module, family: EncoderFamily) -> None:
    """Store only the input of every block that has a backward pass.

    The last block is excluded: only one token of each text is computed in it (`first_token.py`).
    """
    all_blocks: list[Any] = list(blocks(model, family))
    for block in all_blocks[count_frozen_blocks(model, family) : -1]:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
