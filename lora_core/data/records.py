"""Labeled examples in three splits, as training reads them."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from lora_core.specs.data import Split


@dataclass(frozen=True, slots=True)
class Example:
    """A text and its label, an index into `Splits.labels`."""

    row: int  # row in the file; 1 is the first data row, without the header
    text: str
    label: int


@dataclass(frozen=True)
class Splits:
    """The three splits and the names of the labels.

    `digest` identifies the data: it covers label names, texts, labels and their order, split by
    split.
    """

    labels: tuple[str, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    # Validation and test texts that are also in train. Only given splits can leak.
    leaked: int = 0
    drawn: frozenset[Split] = frozenset()  # splits that the data does not define
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(self))

    def examples(self, split: Split) -> tuple[Example, ...]:
        """Return the examples of a split."""
        by_split = {
            Split.TRAIN: self.train,
            Split.VALIDATION: self.validation,
            Split.TEST: self.test,
        }
        return by_split[split]


def _digest(splits: Splits) -> str:
    digest = hashlib.sha256()
    for line in _content(splits):
        encoded = line.encode()
        # length prefix, so that concatenated texts differ
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()


def _content(splits: Splits) -> Iterable[str]:
    yield str(len(splits.labels))
    yield from splits.labels
    for split in Split:
        examples = splits.examples(split)
        yield str(len(examples))
        for example in examples:
            yield example.text
            yield str(example.label)
