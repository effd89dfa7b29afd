"""What a text is labeled with: an index, several indices, or a number.

In rows, labels are strings (`lora_core.data.labels`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_core.specs.label_sets import decode_label_set, encode_label_set
from lora_core.specs.task import TaskType

# Of a text: an int, the index of its label; a tuple of ascending indices; or a float. Which of them
# depends on the task, which the type does not know.
Target = Any
# Of several texts: (texts,) int64, (texts, labels) float32 of 0 and 1, or (texts,) float32
Targets = NDArray[Any]


def decode_target(label: str, task: TaskType, indices: Mapping[str, int]) -> Target:
    """Return the target of a row with this label. `indices` are those of the names."""
    match task:
        case "single_label":
            return indices[label]
        case "multi_label":
            return tuple(sorted(indices[name] for name in decode_label_set(label)))
        case "regression":
            return float(label)


def encode_target(target: Target) -> str:
    """Return a target as the label of a row, with indices as names."""
    return encode_label_set(map(str, target)) if isinstance(target, tuple) else str(target)


def task_of_target(target: Target) -> TaskType:
    """Return the type of task that has such targets."""
    match target:
        case tuple():
            return "multi_label"
        case float():
            return "regression"
        case _:
            return "single_label"


def indicator(targets: Sequence[tuple[int, ...]], labels: int) -> NDArray[np.float32]:
    """Return the targets of a multi-label task as (texts, labels): 1.0 where a text has a label."""
    rows = np.zeros((len(targets), labels), dtype=np.float32)
    for row, indices in zip(rows, targets, strict=True):
        row[list(indices)] = 1.0
    return rows
