"""CSV and TSV, strictly.

Read with the standard library and not with `datasets`, whose errors do not say in which row a quote
is broken, and which reads what it can of a file that is damaged.
"""

import csv
from collections.abc import Iterator
from pathlib import Path

from lora_core.data.limits import MAX_CELL
from lora_core.data.lines import Lines
from lora_core.data.rows import Columns, Numbered
from lora_core.errors import LoraCoreError
from lora_core.errors.data import BrokenRows, DataTooLarge, EmptyData


def cells(path: Path, columns: Columns, delimiter: str) -> Numbered:
    """These columns of a file with a header. Cells may be quoted with `"`, doubled inside a cell.

    Rows are counted as a spreadsheet counts them, blank lines included, from 1 below the header
    (0).

    Raises `BrokenRows`, `WrongEncoding`, `NulByte`, `EmptyData`, `MissingColumn`, `DataTooLarge`.
    """
    table = read_table(path, delimiter)
    _, header = next(table)
    positions = columns.find(path.name, header)
    for number, found in table:
        yield number, [found[i] for i in positions]


def read_table(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """The header as row 0, then the other rows with their numbers, all with as many cells.

    Raises `BrokenRows`, `WrongEncoding`, `NulByte`, `EmptyData`, `DataTooLarge`.
    """
    # One for the whole process, in which other threads may read as well: so it is never put back.
    csv.field_size_limit(MAX_CELL)
    lines = Lines(path)
    records = _records(lines, delimiter)
    header = next((cells for cells in records if cells), None)
    if header is None:
        raise EmptyData(file=path.name)
    yield 0, header
    lines.row = 1
    for cells in records:
        if cells:  # [] is a blank line
            if len(cells) != len(header):
                raise BrokenRows(
                    file=path.name, row=lines.row, problem=_count(len(cells), len(header))
                )
            yield lines.row, cells
        lines.row += 1


def _records(lines: Lines, delimiter: str) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines, delimiter=delimiter, strict=True)
    except csv.Error as error:
        raise _plain(lines, str(error)) from error


def _plain(lines: Lines, message: str) -> LoraCoreError:
    """What the parser means."""
    if "field limit" in message:
        what = f"a cell in row {lines.row} (is a quote left open there?)"
        return DataTooLarge(file=lines.file, what=what, limit=f"{MAX_CELL:,} characters")
    if "unexpected end" in message:
        problem = "a quote is opened and never closed"
    elif "new-line" in message:
        problem = "a line ends with a carriage return alone; save with line ends LF or CRLF"
    else:
        problem = (
            "broken quoting: a quoted cell goes on after its closing quote; "
            "write a quote inside a cell twice"
        )
    return BrokenRows(file=lines.file, row=lines.row, problem=problem)


def _count(found: int, wanted: int) -> str:
    advice = "; a cell that holds the separator needs quotes around it" if found > wanted else ""
    return f"the header has {wanted} cells, this row {found}{advice}"
