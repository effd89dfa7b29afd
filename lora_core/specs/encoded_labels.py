"""Labels of rows as strings: a name, a number, a list of names, or an object of several targets."""

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache

from lora_core.specs.task import TaskType


def encode_label_set(names: Iterable[str]) -> str:
    """Return the label of a row of a multi-label task."""
    return json.dumps(sorted(set(names)), ensure_ascii=False)


@lru_cache(maxsize=10_000)  # few sets are those of most rows
def decode_label_set(label: str) -> tuple[str, ...]:
    """Return the names in the label of a row of a multi-label task."""
    return tuple(json.loads(label))


LabelValue = str | float | tuple[str, ...]  # a name, a number, or a set of names


def encode_label(value: LabelValue) -> str:
    """Return the label of a row that has this value."""
    match value:
        case tuple() as names:
            return encode_label_set(names)
        case str() as name:
            return name
        case number:
            return repr(float(number) + 0.0)  # -0.0 becomes 0.0


def decode_label(label: str, task: TaskType) -> LabelValue:
    """Return the value of a label of a task with one target."""
    match task:
        case "multi_label":
            return decode_label_set(label)
        case "regression":
            return float(label)
        case _:
            return label


# -- Several targets ------------------------------------------------------------------------------

NUMBER = "value"  # the name of the output of a regression
TARGET_SEPARATOR = "/"  # between a target and one of its outputs: no name of a target contains it


def encode_targets(labels: Mapping[str, str | float | tuple[str, ...]]) -> str:
    """Return the label of a row of several targets: each a name, a number, or a set of names."""
    return json.dumps(labels, ensure_ascii=False, sort_keys=True)


@lru_cache(maxsize=10_000)
def decode_targets(label: str) -> Mapping[str, str | float | tuple[str, ...]]:
    """Return the labels of the targets of a row."""
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in json.loads(label).items()
    }


def extract_target_label(label: str, target: str) -> str:
    """Return the label of a row that has only this one of its targets."""
    return encode_label(decode_targets(label)[target])


def replace_target_value(label: str, target: str, value: LabelValue) -> str:
    """Return the label of a row with another value of one of its targets."""
    return encode_targets({**decode_targets(label), target: value})


def infer_target_tasks(label: str) -> dict[str, TaskType]:
    """Return the task of each target of a row."""
    tasks: dict[type, TaskType] = {tuple: "multi_label", float: "regression", str: "single_label"}
    return {name: tasks[type(value)] for name, value in decode_targets(label).items()}


def qualified_output_name(target: str, output: str) -> str:
    """Return the name of an output of a model with several targets."""
    return f"{target}{TARGET_SEPARATOR}{output}"


def unqualified_outputs_of_target(target: str, outputs: Iterable[str]) -> tuple[str, ...]:
    """Return the names that the outputs of one target have without it."""
    prefix = qualified_output_name(target, "")
    return tuple(name.removeprefix(prefix) for name in outputs if name.startswith(prefix))
