"""JSONL: one JSON object a line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from lora_core.data.rows import Columns, Numbered
from lora_core.data.text_lines import Lines
from lora_core.errors.data import BrokenRows


def cells(path: Path, columns: Columns) -> Numbered:
    """These columns. Row numbers are line numbers; the first object says which columns there are.

    Raises `BrokenRows`, `WrongEncoding`, `NulByte`, `MissingColumn`, `DataTooLarge`.
    """
    names: list[str] = []
    for number, found in read_objects(path):
        if not names:
            available = list(found)
            names = [available[i] for i in columns.find(path.name, available)]
        yield number, [value(path.name, number, found, name) for name in names]


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects with the numbers of their lines.

    Raises `BrokenRows`, `WrongEncoding`, `NulByte`, `DataTooLarge`.
    """
    lines = Lines(path)
    lines.row = 1
    for line in lines:
        if line.strip():
            yield lines.row, _object(lines, line)
        lines.row += 1


def _object(lines: Lines, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BrokenRows(file=lines.file, row=lines.row, problem="not a JSON object") from error
    if not isinstance(found, dict):
        raise BrokenRows(file=lines.file, row=lines.row, problem="not a JSON object")
    return found


def value(file: str, row: int, found: dict[str, Any], name: str) -> Any:
    """What an object has under a name. Raises `BrokenRows` if it has no such name."""
    try:
        return found[name]
    except KeyError:
        raise BrokenRows(file=file, row=row, problem=f"no {name!r}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
