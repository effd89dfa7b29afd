"""The reviews that both sides train on: the same texts, tokenised in the same way."""

import numpy as np

from lora_core.data.load import load
from lora_core.data.records import Splits
from lora_core.data.tokens import load_tokenizer, tokenise
from lora_core.encoders.load import Base
from lora_core.specs.data import MAX_LENGTH, DataSpec, Split
from lora_core.training.part import Part


def read(data: DataSpec, base: Base) -> tuple[Splits, dict[Split, Part]]:
    """Texts, and their token ids cut at `max_length`."""
    splits = load(data)
    tokenizer = load_tokenizer(base.directory / "tokenizer.json")
    pad = tokenizer.token_to_id("[PAD]") or 0
    parts = {}
    for split in Split:
        examples = splits.part(split)
        tokens = tokenise(tokenizer, [each.text for each in examples], data.max_length or MAX_LENGTH)
        labels = np.array([each.label for each in examples], dtype=np.int64)
        parts[split] = Part(split, tokens, tokens.lengths, labels, pad)
    return splits, parts
