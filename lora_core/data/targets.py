"""What a text is labeled with: an index, several indices, or a number.

In rows, labels are strings, whatever the task: a name, a JSON list of names in their order, or a
number as `repr` writes it. So rows with equal labels have equal strings.
"""

import json
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of a text: an int, the index of its label; a tuple of ascending indices; or a float. Which of them
# depends on the task, which the type does not know.
Target = Any
# Of several texts: (texts,) int64, (texts, labels) float32 of 0 and 1, or (texts,) float32
Targets = NDArray[Any]


def encode_label_set(names: Collection[str]) -> str:
    """Return the label of a row of a multi-label task."""
    return json.dumps(sorted(set(names)), ensure_ascii=False)


def decode_label_set(label: str) -> tuple[str, ...]:
    """Return the names in the label of a row of a multi-label task."""
    return tuple(json.loads(label))


def indicator(targets: Sequence[tuple[int, ...]], labels: int) -> NDArray[np.float32]:
    """Return the targets of a multi-label task as (texts, labels): 1.0 where a text has a label."""
    rows = np.zeros((len(targets), labels), dtype=np.float32)
    for row, indices in zip(rows, targets, strict=True):
        row[list(indices)] = 1.0
    return rows
