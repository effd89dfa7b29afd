"""Parts that the data itself names: by a column, or by the splits of a hub data set."""

from collections.abc import Iterable

from lora_core.data.rows import Row
from lora_core.errors.data import MissingSplit, UnknownSplit
from lora_core.specs.data import Split

NAMES = {
    "train": Split.TRAIN,
    "validation": Split.VALIDATION,
    "valid": Split.VALIDATION,
    "val": Split.VALIDATION,
    "dev": Split.VALIDATION,
    "test": Split.TEST,
}

Parts = dict[Split, list[Row]]


def named(value: str) -> Split | None:
    """The part that a name stands for, in any case; None for other names."""
    return NAMES.get(value.strip().lower())


def by_column(file: str, rows: Iterable[Row]) -> Parts | None:
    """Rows by the value of their split column; None if there is no such column.

    Raises `UnknownSplit`.
    """
    parts: Parts = {}
    for row in rows:
        if row.split is None:
            return None
        part = named(row.split)
        if part is None:
            raise UnknownSplit(file=file, row=row.number, value=row.split)
        parts.setdefault(part, []).append(row)
    return parts


def with_train(file: str, parts: Parts) -> Parts:
    """The same parts. Raises `MissingSplit` if there is nothing to train on."""
    if Split.TRAIN not in parts:
        raise MissingSplit(file=file, split=Split.TRAIN.value)
    return parts
