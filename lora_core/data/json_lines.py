"""JSONL: one JSON object a line."""

import json
from pathlib import Path
from typing import Any, NoReturn

from lora_core.data.lines import Lines
from lora_core.data.rows import Columns, Row, RowCollector
from lora_core.errors import BrokenRows


def read(path: Path, columns: Columns) -> list[Row]:
    """All rows. Row numbers are line numbers; the first object says which columns there are.

    Raises `BrokenRows`, `WrongEncoding`, `NulByte`, `EmptyData`, `EmptyText`, `MissingLabel`,
    `MissingColumn`, `DataTooLarge`.
    """
    lines = Lines(path)
    lines.row = 1
    rows = RowCollector(path.name)
    names: list[str] = []
    for line in lines:
        if line.strip():
            found = _object(lines, line)
            if not names:
                available = list(found)
                names = [available[i] for i in columns.find(path.name, available)]
            rows.add(lines.row, [_value(lines, found, name) for name in names])
        lines.row += 1
    return rows.rows()


def _object(lines: Lines, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise BrokenRows(file=lines.file, row=lines.row, problem="not a JSON object") from error
    if not isinstance(found, dict):
        raise BrokenRows(file=lines.file, row=lines.row, problem="not a JSON object")
    return found


def _value(lines: Lines, found: dict[str, Any], name: str) -> Any:
    try:
        return found[name]
    except KeyError:
        raise BrokenRows(file=lines.file, row=lines.row, problem=f"no {name!r}") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
