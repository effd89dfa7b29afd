"""What training reads: examples in three parts."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from lora_core.specs.data import Split


@dataclass(frozen=True, slots=True)
class Example:
    """One text with its label, an index into `Splits.labels`."""

    row: int  # in its file; 1 is the first row of data, the header is not counted
    text: str
    label: int


@dataclass(frozen=True)
class Splits:
    """The three parts and the names of the labels.

    `digest` tells two data sets apart: it covers label names, texts, labels and their order, part
    by part.
    """

    labels: tuple[str, ...]
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    # Validation and test texts that are in train as well: only in parts that were given.
    leaked: int = 0
    drawn: frozenset[Split] = frozenset()  # parts that the data do not name
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(self))

    def part(self, split: Split) -> tuple[Example, ...]:
        """The examples of one part."""
        parts = {Split.TRAIN: self.train, Split.VALIDATION: self.validation, Split.TEST: self.test}
        return parts[split]


def _digest(splits: Splits) -> str:
    digest = hashlib.sha256()
    for line in _content(splits):
        encoded = line.encode()
        digest.update(len(encoded).to_bytes(8, "big"))  # so that no text can pass for two
        digest.update(encoded)
    return digest.hexdigest()


def _content(splits: Splits) -> Iterable[str]:
    yield str(len(splits.labels))
    yield from splits.labels
    for split in Split:
        examples = splits.part(split)
        yield str(len(examples))
        for example in examples:
            yield example.text
            yield str(example.label)
