"""The reviews that both sides train on: the same texts, tokenised in the same way."""

from lora_core.data.load import load
from lora_core.data.records import Splits
from lora_core.data.tokenized_split import Part
from lora_core.data.tokens import load_tokenizer
from lora_core.encoders.load import Base
from lora_core.specs.data import MAX_LENGTH, DataSpec, Split
from lora_core.training.prepare import tokenise_parts


def read(data: DataSpec, base: Base) -> tuple[Splits, dict[Split, Part]]:
    """Texts, and their token ids cut at `max_length`."""
    splits = load(data)
    tokenizer = load_tokenizer(base.directory / "tokenizer.json")
    parts, _ = tokenise_parts(splits, tokenizer, data.max_length or MAX_LENGTH, pad=0)
    return splits, parts
