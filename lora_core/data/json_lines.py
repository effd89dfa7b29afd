"""JSON Lines: one JSON object per line."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from lora_core.data.rows import ColumnSelection, NumberedCells
from lora_core.data.text_lines import TextLines
from lora_core.errors.data import InvalidRow


def iter_cells(path: Path, columns: ColumnSelection) -> NumberedCells:
    """Yield the selected columns. Row numbers are line numbers; the first object defines the
    columns.

    Raises `InvalidRow`, `WrongEncoding`, `NulByte`, `MissingColumn`, `DataTooLarge`.
    """
    names: list[str] = []
    for number, record in read_objects(path):
        if not names:
            available = list(record)
            names = [available[i] for i in columns.find_positions(path.name, available)]
        yield number, [get_field(path.name, number, record, name) for name in names]


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the objects with their line numbers.

    Raises `InvalidRow`, `WrongEncoding`, `NulByte`, `DataTooLarge`.
    """
    lines = TextLines(path)
    lines.row = 1
    for line in lines:
        if line.strip():
            yield lines.row, _parse_object(lines, line)
        lines.row += 1


def _parse_object(lines: TextLines, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidRow(file=lines.file, row=lines.row, problem="not a JSON object") from error
    if not isinstance(record, dict):
        raise InvalidRow(file=lines.file, row=lines.row, problem="not a JSON object")
    return record


def get_field(file: str, row: int, record: dict[str, Any], name: str) -> Any:
    """Return a field of an object. Raises `InvalidRow` if it is missing."""
    try:
        return record[name]
    except KeyError:
        raise InvalidRow(file=file, row=row, problem=f"no field {name!r}") from None


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
