"""What is told of every file that was read."""

from collections import Counter, defaultdict

from lora_core.data.contents import Contents
from lora_core.data.labels import similar
from lora_core.data.split import leaked, normalised
from lora_core.specs.data import Split
from lora_core.specs.frozen import Frozen


class Profile(Frozen):
    """A sound file. Texts are the same when they are equal but for white space around them."""

    rows: int
    text_column: str
    label_column: str | None  # None: it was read without labels, and the figures below are 0
    split_column: str | None  # None: there is none
    labels: dict[str, int]  # rows of each, in the order of training
    similar_labels: tuple[
        tuple[str, ...], ...
    ] = ()  # those that differ in case or white space only
    splits: dict[Split, int]  # empty without a split column
    duplicates: int  # rows whose text stands in an earlier row
    conflicting_duplicates: int  # texts that stand there with more than one label
    leaked: int  # rows of validation and test whose text is in train as well
    mean_characters: float
    max_characters: int
    encoding: str | None = None  # of a table in a text file
    separator: str | None = None  # of its cells
    sheet: str | None = None  # of a workbook, the one that was read
    blank_rows: int = 0  # that were skipped


def describe(found: Contents) -> Profile:
    """The profile of what was read."""
    counts = Counter(row.label for row in found.rows)
    by_text: dict[str, set[str]] = defaultdict(set)
    for row in found.rows:
        by_text[normalised(row.text)].add(row.label)
    lengths = [len(row.text) for row in found.rows]
    return Profile(
        rows=len(found.rows),
        text_column=found.columns.text,
        label_column=found.columns.label,
        split_column=found.split_column,
        labels={label: counts[label] for label in found.labels},
        similar_labels=similar(found.labels),
        splits={part: len(rows) for part in Split if (rows := (found.given or {}).get(part))},
        duplicates=len(found.rows) - len(by_text),
        conflicting_duplicates=sum(len(labels) > 1 for labels in by_text.values()),
        leaked=leaked(found.parts),
        mean_characters=round(sum(lengths) / len(lengths), 1),
        max_characters=max(lengths),
        encoding=found.reading.encoding,
        separator=found.reading.separator,
        sheet=found.reading.sheet,
        blank_rows=found.reading.blank_rows,
    )
