"""The reviews that both sides train on: the same texts, tokenised in the same way."""

from lora_core.data.load import load
from lora_core.data.records import Splits
from lora_core.encoders.checkpoint import Base
from lora_core.specs.data import DataSpec, Split
from lora_core.training.part import Part
from lora_core.training.prepare import MAX_LENGTH, tokenise_parts


def read(data: DataSpec, base: Base) -> tuple[Splits, dict[Split, Part]]:
    """Texts, and their token ids cut at `max_length`."""
    splits = load(data)
    file = base.directory / "tokenizer.json"
    parts, _ = tokenise_parts(splits, file, data.max_length or MAX_LENGTH)
    return splits, parts
