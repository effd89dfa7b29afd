"""Rows of a run with their splits, in a file: one JSON array per line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from lora_core.specs.data import Split


class LabeledSplitRow(NamedTuple):
    """A row of a split. `label` is in the form of `lora_core.data.label_readers`."""

    split: Split
    row: int  # in its file; 1 is the first data row
    text: str
    pair: str | None  # the second text of a pair
    label: str


def format_split_row(row: LabeledSplitRow) -> str:
    """Return the line of a row."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_split_rows(path: Path) -> Iterator[LabeledSplitRow]:
    """Yield the rows of a file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            split, *others = json.loads(line)
            yield LabeledSplitRow(Split(split), *others)
