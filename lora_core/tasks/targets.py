"""What a text is labeled with: an index, several indices, a number, or several of these.

In rows, labels are strings (`lora_core.data.label_readers`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lora_core.specs.encoded_labels import (
    TARGET_SEPARATOR,
    decode_label_set,
    decode_targets,
    encode_label_set,
    encode_targets,
    qualified_output_name,
)
from lora_core.specs.task import TaskType

# Of a text: an int, the index of its label; a tuple of ascending indices; a float; or, of several
# targets, a dict of these by name. Which of them depends on the task, which the type does not know.
Target = Any
# Of several texts: (texts,) int64, (texts, labels) float32 of 0 and 1, (texts,) float32, or, of
# several targets, their columns side by side as (texts, columns) float32
Targets = NDArray[Any]


def build_label_index(names: Sequence[str], task: TaskType) -> dict[str, int]:
    """Return the index of each label, of several targets that among the labels of its target."""
    if task != "several_targets":
        return {name: i for i, name in enumerate(names)}
    counts = Counter[str]()
    indices = {}
    for name in names:
        target = name.partition(TARGET_SEPARATOR)[0]
        indices[name] = counts[target]
        counts[target] += 1
    return indices


def label_to_target(label: str, task: TaskType, indices: Mapping[str, int]) -> Target:
    """Return the target of a row with this label. `indices` are those of `build_label_index`."""
    match task:
        case "single_label":
            return indices[label]
        case "multi_label":
            return tuple(sorted(indices[name] for name in decode_label_set(label)))
        case "regression":
            return float(label)
        case "several_targets":
            return {
                target: _decode_value(target, value, indices)
                for target, value in decode_targets(label).items()
            }


def _decode_value(
    target: str, value: str | float | tuple[str, ...], indices: Mapping[str, int]
) -> Target:
    match value:
        case str():
            return indices[qualified_output_name(target, value)]
        case tuple():
            return tuple(sorted(indices[qualified_output_name(target, name)] for name in value))
        case _:
            return value


def target_to_index_label(target: Target) -> str:
    """Return a target as the label of a row, with indices as names."""
    match target:
        case dict():
            return encode_targets({name: _encode_value(value) for name, value in target.items()})
        case tuple():
            return encode_label_set(map(str, target))
        case _:
            return str(target)


def _encode_value(target: Target) -> str | float | tuple[str, ...]:
    match target:
        case tuple():
            return tuple(map(str, target))
        case float():
            return target
        case _:
            return str(target)


def infer_task_type(target: Target) -> TaskType:
    """Return the type of task that has such targets."""
    match target:
        case dict():
            return "several_targets"
        case tuple():
            return "multi_label"
        case float():
            return "regression"
        case _:
            return "single_label"


def multi_hot(targets: Sequence[tuple[int, ...]], labels: int) -> NDArray[np.float32]:
    """Return the targets of a multi-label task as (texts, labels): 1.0 where a text has a label."""
    rows = np.zeros((len(targets), labels), dtype=np.float32)
    for row, indices in zip(rows, targets, strict=True):
        row[list(indices)] = 1.0
    return rows
