"""How the fields of a sweep, their values and its figures are called and ordered."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.sweeps.snapshot import Board, Cell
from lora_core.specs.method import Role

OBJECTIVES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "balanced_accuracy": "balanced accuracy",
    "loss": "loss",
}
UNKNOWN = "-"


@dataclass(frozen=True)
class Axis:
    """A field and the values it takes: numbers ascending, others in the order of the cells."""

    field: str
    label: str
    texts: tuple[str, ...]  # of the values, each once
    numbers: tuple[float, ...] | None  # the values, where all are numbers

    def position(self, cell: Cell) -> int:
        """Where the cell's value stands among them."""
        return self.texts.index(text(cell.settings.get(self.field)))


def text(value: Any) -> str:
    """A value as it is read: `query+value`, `all` for every role of a layer, `16` for 16.0."""
    match value:
        case None:
            return UNKNOWN
        case list() | tuple():
            return "all" if set(map(str, value)) == set(Role) else "+".join(map(text, value))
        case bool() | dict():
            return json.dumps(value, ensure_ascii=False)
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)


def labels(fields: Sequence[str]) -> dict[str, str]:
    """The last part of each name (`r`), or all of it where two would be called the same."""
    short = [field.rsplit(".", 1)[-1] for field in fields]
    return {
        field: name if short.count(name) == 1 else field
        for field, name in zip(fields, short, strict=True)
    }


def varied(board: Board, cells: Sequence[Cell]) -> list[Axis]:
    """The fields that take two values or more in these cells, in the order of the space."""
    names = labels(board.fields)
    axes = [_axis(field, names[field], cells) for field in board.fields]
    return [axis for axis in axes if len(axis.texts) > 1]


def settings(board: Board, cell: Cell) -> list[str]:
    """What the space chose for a cell: `r = 8`, `alpha = 16`."""
    names = labels(board.fields)
    return [f"{names[field]} = {text(cell.settings.get(field))}" for field in board.fields]


def percent(share: float) -> str:
    """A share of one."""
    return f"{100 * share:.1f} %"


def score(objective: str, value: float) -> str:
    """The value of an objective, which is a share unless it is the loss."""
    return f"{value:.3f}" if objective == "loss" else percent(value)


def all_numbers(cells: Sequence[Cell], field: str) -> bool:
    """Whether a field is a number in each of the cells."""
    values = [cell.settings.get(field) for cell in cells]
    return all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)


def _axis(field: str, label: str, cells: Sequence[Cell]) -> Axis:
    values: dict[str, Any] = {text(each): each for each in (c.settings.get(field) for c in cells)}
    if not all_numbers(cells, field):
        return Axis(field, label, tuple(values), None)
    ordered = sorted(values, key=lambda each: float(values[each]))
    return Axis(field, label, tuple(ordered), tuple(float(values[each]) for each in ordered))
