"""An encoder in pieces: its embeddings, and any run of its blocks.

What `model.base_model` does in one go, for those who need to stop or to begin in between.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from lora_core.encoders.base import EncoderFamily
from lora_core.encoders.modules import blocks


def embed(model: nn.Module, family: EncoderFamily, input_ids: Tensor) -> Tensor:
    """Token ids (batch, length) -> states (batch, length, width) before the first block."""
    x: Tensor = model.get_submodule(family.embeddings)(input_ids=input_ids)
    return x


def visible(attention_mask: Tensor) -> Tensor | None:
    """Which keys each query sees, (batch, 1, 1, length). None: all, which is the cheaper case."""
    return None if bool(attention_mask.all()) else attention_mask[:, None, None].bool()


def run(some: Iterable[nn.Module], x: Tensor, mask: Tensor | None) -> Tensor:
    """States (batch, length, width) through blocks that follow each other."""
    for block in some:
        x = block(x, mask)
    return x


def frozen_blocks(model: nn.Module, family: EncoderFamily) -> int:
    """How many of the first blocks, with everything below them, train nothing."""
    below = [model.get_submodule(family.embeddings), *blocks(model, family)]
    frozen = 0
    for piece in below:
        if any(parameter.requires_grad for parameter in piece.parameters()):
            break
        frozen += 1
    return max(0, frozen - 1)
