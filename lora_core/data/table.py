"""Whole rows of a file, one after the other: what an answer to a row is written beside."""

import json
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from lora_core.data import files, json_lines
from lora_core.data.limits import MAX_COLUMNS
from lora_core.data.rows import Columns
from lora_core.data.tabular import Table
from lora_core.errors.data import BrokenRows, ColumnTaken, DataTooLarge, EmptyData, EmptyText
from lora_core.specs.predict import LABEL, SCORE, SCORES


class Record(NamedTuple):
    """One row. `number` is what a person sees: 1 is the first row of data."""

    number: int
    text: str
    cells: dict[str, Any]  # all of the row, as JSON has it


def read(path: Path, text_column: str, sheet: str | None = None) -> Iterator[Record]:
    """The rows of a `.csv`, `.tsv`, `.xlsx`, `.jsonl` or `.parquet` file, one after the other.

    Raises what `files.read` raises, and `ColumnTaken`.
    """
    ending = files.check(path, sheet)
    match ending:
        case ".parquet":
            rows = _parquet(path, text_column)
        case ".jsonl":
            rows = _json_lines(path, text_column)
        case _:
            rows = _tabular(files.open_table(path, ending, sheet), text_column)
    first = next(rows, None)
    if first is None:
        raise EmptyData(file=path.name)
    for number, text, cells in chain([first], rows):
        if text is not None and not isinstance(text, str):
            problem = f"the text is a {type(text).__name__}, not a string"
            raise BrokenRows(file=path.name, row=number, problem=problem)
        if text is None or not text.strip():
            raise EmptyText(file=path.name, count=1, rows=number)
        yield Record(number, text, cells)


Rows = Iterator[tuple[int, Any, dict[str, Any]]]


def _tabular(table: Table, text_column: str) -> Rows:
    _check_names(table.file, table.header, text_column)
    for number, cells in table.rows:
        row = dict(zip(table.header, cells, strict=True))
        table.check(number, [row[text_column]])
        yield number, row[text_column], row


def _json_lines(path: Path, text_column: str) -> Rows:
    known: set[str] = set()
    for number, found in json_lines.read_objects(path):
        if not known:
            _check_names(path.name, list(found), text_column)
        if new := found.keys() - known:
            known |= new
            _check_free(path.name, list(known))
        text = json_lines.value(path.name, number, found, text_column)
        yield number, text, _writable(path.name, number, found)


def _parquet(path: Path, text_column: str) -> Rows:
    from lora_core.data import arrow  # as in `files`
    from lora_core.data.arrow import ArrowCells, check_types

    with arrow.opened(path) as file:
        names = file.schema_arrow.names
        _check_names(path.name, names, text_column)
        check_types(path.name, [file.schema_arrow.field(text_column).type])
        cells = ArrowCells(path.name)
        for batch in arrow.batches(file, names):
            rows = zip(*map(cells.values, batch.columns), strict=True)
            for number, row in enumerate(rows, cells.row + 1):
                found = dict(zip(names, row, strict=True))
                plain = {name: _plain(path.name, number, each) for name, each in found.items()}
                yield number, plain[text_column], plain
            cells.row += len(batch)


def _check_names(file: str, names: Sequence[str], text_column: str) -> None:
    """Raises `MissingColumn`, `BrokenRows`, `ColumnTaken`, `DataTooLarge`."""
    Columns(text_column, label=None).find(file, names)
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise BrokenRows(file=file, row=0, problem=f"the column {twice!r} is there twice")
    _check_free(file, names)


def _check_free(file: str, names: Sequence[str]) -> None:
    """Names that the answers do not need. Raises `ColumnTaken`, `DataTooLarge`."""
    if len(names) > MAX_COLUMNS:
        raise DataTooLarge(file=file, what="the number of columns", limit=f"{MAX_COLUMNS:,}")
    for name in names:
        if name in (LABEL, SCORE, SCORES) or name.startswith(f"{SCORES}."):
            raise ColumnTaken(file=file, column=name)


def _writable(file: str, number: int, cells: dict[str, Any]) -> dict[str, Any]:
    """JSON can be read that cannot be written: 1e999, half a surrogate pair."""
    try:
        json.dumps(cells, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        problem = "a number out of range, or half a surrogate pair, which is no character"
        raise BrokenRows(file=file, row=number, problem=problem) from error
    return cells


def _plain(file: str, number: int, cell: Any) -> Any:
    """As JSON has it: times and decimals as text, NaN and infinity as null."""
    match cell:
        case None | bool() | int() | str():
            return cell
        case float():
            return cell if math.isfinite(cell) else None
        case list() | tuple():
            return [_plain(file, number, each) for each in cell]
        case dict():
            return {str(name): _plain(file, number, each) for name, each in cell.items()}
        case bytes():
            raise BrokenRows(file=file, row=number, problem="a cell holds bytes, not text")
        case _:
            return str(cell)
