"""Label names, in an order that does not depend on the order of the data."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

from lora_core.data.rows import MAX_ROWS_IN_ERROR, TextRow
from lora_core.errors.data import SingleClass, UnseenLabel
from lora_core.specs.data import Split

INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


def label_names(labels: Collection[str]) -> tuple[str, ...]:
    """Return the distinct labels, sorted by value if all are integers, else by name."""
    distinct = set(labels)
    if all(INTEGER.fullmatch(label) for label in distinct):
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
    return tuple(sorted(distinct))


def similar_labels(labels: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return groups of labels that differ in case or white space only, such as Lob and lob."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in labels:
        spellings[" ".join(label.casefold().split())].append(label)
    return tuple(tuple(group) for group in spellings.values() if len(group) > 1)


def check_labels(file: str, splits: Mapping[Split, Sequence[TextRow]]) -> tuple[str, ...]:
    """Return the label names of the train split.

    Raises `SingleClass`, and `UnseenLabel` if another split has a label that train does not have.
    """
    labels = {row.label for rows in splits.values() for row in rows}
    if len(labels) == 1:
        raise SingleClass(file=file, label=labels.pop())
    seen = {row.label for row in splits[Split.TRAIN]}
    for split, rows in splits.items():
        if unseen := [row for row in rows if row.label not in seen]:
            label = unseen[0].label
            numbers = [str(row.number) for row in unseen if row.label == label]
            raise UnseenLabel(
                label=label, split=split.value, rows=", ".join(numbers[:MAX_ROWS_IN_ERROR])
            )
    return label_names(seen)
