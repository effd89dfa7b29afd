"""Names of labels, in an order that does not depend on the data's."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from lora_core.data.rows import SHOWN, Row
from lora_core.errors.data import OneClass, UnseenLabel
from lora_core.specs.data import Split

WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)


def label_names(labels: Collection[str]) -> tuple[str, ...]:
    """Each label once: by value if all are whole numbers, else by name."""
    distinct = set(labels)
    if all(WHOLE.fullmatch(label) for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    return tuple(sorted(distinct))


def similar(labels: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Labels that differ in case or white space only, as Lob and lob do: often one label."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        spellings[" ".join(label.casefold().split())].append(label)
    return tuple(tuple(found) for found in spellings.values() if len(found) > 1)


def check(file: str, parts: Mapping[Split, Sequence[Row]]) -> tuple[str, ...]:
    """The names of the labels in train.

    Raises `OneClass`, and `UnseenLabel` if another part has a label that train never shows.
    """
    every = {row.label for rows in parts.values() for row in rows}
    if len(every) == 1:
        raise OneClass(file=file, label=every.pop())
    seen = {row.label for row in parts[Split.TRAIN]}
    for part, rows in parts.items():
        if unseen := [row for row in rows if row.label not in seen]:
            label = unseen[0].label
            numbers = [str(row.number) for row in unseen if row.label == label]
            raise UnseenLabel(label=label, split=part.value, rows=", ".join(numbers[:SHOWN]))
    return label_names(seen)
