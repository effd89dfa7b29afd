"""The reviews that both sides train on: the same texts, tokenized the same way."""

from lora_core.data.load import load_splits
from lora_core.data.split import Splits
from lora_core.data.tokens import TokenizedSplit, load_tokenizer
from lora_core.encoders.load import BaseCheckpoint
from lora_core.specs.data import MAX_LENGTH, DataSpec, Split
from lora_core.tasks.single_label import SingleLabel
from lora_core.training.prepare import tokenize_splits_and_measure_truncation


def read(data: DataSpec, base: BaseCheckpoint) -> tuple[Splits, dict[Split, TokenizedSplit]]:
    """Texts, and their token ids cut at `max_length`."""
    splits = load_splits(data)
    tokenizer = load_tokenizer(base.directory / "tokenizer.json")
    task = SingleLabel(splits.labels)
    parts, _ = tokenize_splits_and_measure_truncation(
        splits, task, tokenizer, data.max_length or MAX_LENGTH, pad_id=0
    )
    return splits, parts
