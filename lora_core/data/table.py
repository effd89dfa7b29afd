"""Whole rows of a file, one at a time, for batch predictions that are written next to them."""

import json
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from lora_core.data import files, json_lines
from lora_core.data.limits import MAX_COLUMNS
from lora_core.data.rows import ColumnSelection
from lora_core.data.tabular import StringTable
from lora_core.errors.data import DataTooLarge, EmptyData, InvalidRow, MissingText, ReservedColumn
from lora_core.specs.predict import LABEL, SCORE, SCORES


class Record(NamedTuple):
    """One row. `number` is the row number that users see: 1 is the first data row."""

    number: int
    text: str
    cells: dict[str, Any]  # the whole row as JSON values


def read_records(path: Path, text_column: str, sheet: str | None = None) -> Iterator[Record]:
    """Yield the rows of a `.csv`, `.tsv`, `.xlsx`, `.jsonl` or `.parquet` file.

    Raises what `files.read_rows` raises, and `ReservedColumn`.
    """
    suffix = files.check_file(path, sheet)
    match suffix:
        case ".parquet":
            rows = _parquet(path, text_column)
        case ".jsonl":
            rows = _json_lines(path, text_column)
        case _:
            rows = _tabular(files.open_table(path, suffix, sheet), text_column)
    first = next(rows, None)
    if first is None:
        raise EmptyData(file=path.name)
    for number, text, cells in chain([first], rows):
        if text is not None and not isinstance(text, str):
            problem = f"the text is a {type(text).__name__}, not a string"
            raise InvalidRow(file=path.name, row=number, problem=problem)
        if text is None or not text.strip():
            raise MissingText(file=path.name, count=1, rows=number)
        yield Record(number, text, cells)


RecordCells = Iterator[tuple[int, Any, dict[str, Any]]]


def _tabular(table: StringTable, text_column: str) -> RecordCells:
    _check_names(table.file, table.header, text_column)
    for number, cells in table.rows:
        row = dict(zip(table.header, cells, strict=True))
        table.check_formulas(number, [row[text_column]])
        yield number, row[text_column], row


def _json_lines(path: Path, text_column: str) -> RecordCells:
    seen_names: set[str] = set()
    for number, cells_by_name in json_lines.read_objects(path):
        if not seen_names:
            _check_names(path.name, list(cells_by_name), text_column)
        if new_names := cells_by_name.keys() - seen_names:
            seen_names |= new_names
            _check_reserved(path.name, list(seen_names))
        text = json_lines.get_field(path.name, number, cells_by_name, text_column)
        yield number, text, _check_json(path.name, number, cells_by_name)


def _parquet(path: Path, text_column: str) -> RecordCells:
    from lora_core.data import arrow  # pyarrow is slow to import
    from lora_core.data.arrow import ArrowDecoder, check_column_types

    with arrow.open_parquet(path) as file:
        names = file.schema_arrow.names
        _check_names(path.name, names, text_column)
        check_column_types(path.name, [file.schema_arrow.field(text_column).type])
        decoder = ArrowDecoder(path.name)
        for batch in arrow.iter_batches(file, names):
            rows = zip(*map(decoder.decode_column, batch.columns), strict=True)
            for number, row in enumerate(rows, decoder.row + 1):
                cells_by_name = dict(zip(names, row, strict=True))
                json_cells = {
                    name: _to_json(path.name, number, value)
                    for name, value in cells_by_name.items()
                }
                yield number, json_cells[text_column], json_cells
            decoder.row += len(batch)


def _check_names(file: str, names: Sequence[str], text_column: str) -> None:
    """Raise `MissingColumn`, `InvalidRow`, `ReservedColumn` or `DataTooLarge`."""
    ColumnSelection(text_column, label=None).find_positions(file, names)
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise InvalidRow(file=file, row=0, problem=f"column {duplicate!r} is duplicated")
    _check_reserved(file, names)


def _check_reserved(file: str, names: Sequence[str]) -> None:
    """Raise `ReservedColumn` for the name of an output column, or `DataTooLarge`."""
    if len(names) > MAX_COLUMNS:
        raise DataTooLarge(file=file, what="the number of columns", limit=f"{MAX_COLUMNS:,}")
    for name in names:
        if name in (LABEL, SCORE, SCORES) or name.startswith(f"{SCORES}."):
            raise ReservedColumn(file=file, column=name)


def _check_json(file: str, number: int, cells: dict[str, Any]) -> dict[str, Any]:
    """Return the cells. Some JSON can be read but not written: 1e999, a lone surrogate."""
    try:
        json.dumps(cells, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        problem = "a number out of range, or a lone surrogate, which is not a character"
        raise InvalidRow(file=file, row=number, problem=problem) from error
    return cells


def _to_json(file: str, number: int, cell: Any) -> Any:
    """Return a cell as a JSON value: times and decimals as text, NaN and infinity as null."""
    match cell:
        case None | bool() | int() | str():
            return cell
        case float():
            return cell if math.isfinite(cell) else None
        case list() | tuple():
            return [_to_json(file, number, value) for value in cell]
        case dict():
            return {str(name): _to_json(file, number, value) for name, value in cell.items()}
        case bytes():
            raise InvalidRow(file=file, row=number, problem="a cell contains bytes, not text")
        case _:
            return str(cell)
