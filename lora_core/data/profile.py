"""What an inspection of a file tells."""

from lora_core.specs.data import Split
from lora_core.specs.frozen import Frozen


class Profile(Frozen):
    """A sound file. Texts are the same when they are equal but for white space around them."""

    rows: int
    text_column: str
    label_column: str | None  # None: it was read without labels, and the figures below are 0
    split_column: str | None  # None: there is none
    labels: dict[str, int]  # rows of each, in the order of training
    similar_labels: tuple[tuple[str, ...], ...] = ()  # those that differ in case only
    splits: dict[Split, int]  # empty without a split column
    duplicates: int  # rows whose text stands in an earlier row
    conflicting_duplicates: int  # texts that stand there with more than one label
    leaked: int  # rows of validation and test whose text is in train as well
    mean_characters: float
    max_characters: int
