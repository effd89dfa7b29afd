"""What one encoder architecture calls its parts. Names only: no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lora_core.specs.method import Role


@dataclass(frozen=True)
class Size:
    """A size in config.json: the names it may have there, and what it is when it is missing."""

    names: tuple[str, ...]
    default: int
    least: int = 1


@dataclass(frozen=True)
class EncoderFamily:
    """The names inside the sequence classifier that transformers has for this architecture."""

    model_type: str  # as config.json says it
    embeddings: str  # what comes before the first block
    block_list: str  # the list of transformer blocks, in order
    roles: Mapping[Role, tuple[str, ...]]  # linear layers inside one block
    activation: str  # inside one block: between the two layers of the feed-forward network
    norms: tuple[str, str]  # inside one block: after attention, and after the feed-forward network
    head: tuple[str, ...]  # linear layers after the last block, in order
    head_activation: Literal["relu", "tanh"]  # between the two layers of the head
    dropouts: tuple[str, ...]  # config fields: dropout inside the encoder
    head_dropout: str  # config field: dropout in the head
    head_dropout_layer: str  # what drops out before the last layer of the head
    saved_modules: tuple[str, ...]  # the head, as PEFT calls what it saves in full
    # layers, heads, width, feed_forward, vocabulary, positions; segments and padding if it has them
    sizes: Mapping[str, Size]
    drops_head_input: bool = False  # whether the same drops out before the first layer of the head
