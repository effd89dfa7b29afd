"""Excel workbooks (`.xlsx`): the values of one sheet, as strings.

Read by openpyxl, one row after the other. Formulas give what Excel computed last. Links to other
files are not followed; macros, pictures and notes are not read.
"""

import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, time
from itertools import islice
from pathlib import Path
from typing import Any

from openpyxl import load_workbook
from openpyxl.utils import get_column_letter
from openpyxl.workbook import Workbook

from lora_core.data.limits import MAX_BYTES
from lora_core.data.tabular import Reading, Rows, Table
from lora_core.errors import LoraCoreError
from lora_core.errors.data import (
    BrokenRows,
    DataTooLarge,
    EmptyData,
    MissingSheet,
    UnsupportedFormat,
)

AT_ONCE = 128  # rows that are parsed before they are looked at
LAST_ROW = 1 << 20  # of Excel's own sheets


def open_table(path: Path, sheet: str | None) -> Table:
    """A sheet with a header: the one of this name, or the first visible one with any cells.

    Rows are counted as Excel does, but from 1 below the header.

    Raises, here or while rows are read, `UnsupportedFormat` for a damaged file, `MissingSheet`,
    `EmptyData`, `BrokenRows`, `DataTooLarge`.
    """
    with _parsing(path.name):
        _check_size(path)
        workbook = load_workbook(path, read_only=True, data_only=True, keep_links=False)
    try:
        chosen = _choose(path.name, workbook, sheet)
        shown = tuple(each.title for each in workbook.worksheets if each.sheet_state == "visible")
        reading = Reading(sheet=chosen.title, sheets=shown)
        return Table.of(path.name, reading, _rows(path.name, workbook, chosen))
    except BaseException:
        workbook.close()
        raise


def _check_size(path: Path) -> None:
    """By what the archive claims, which bounds what is read of it."""
    with zipfile.ZipFile(path) as archive:
        if sum(part.file_size for part in archive.infolist()) > MAX_BYTES:
            raise DataTooLarge(
                file=path.name, what="its unpacked size", limit=f"{MAX_BYTES:,} bytes"
            )


def _choose(file: str, workbook: Workbook, name: str | None) -> Any:
    sheets = workbook.worksheets
    for sheet in sheets:
        if sheet.title == name:
            return sheet
        if name is None and sheet.sheet_state == "visible" and any(map(any, _cells(file, sheet))):
            return sheet
    if name is None:
        raise EmptyData(file=file)
    raise MissingSheet(file=file, sheet=name, available=", ".join(each.title for each in sheets))


def _rows(file: str, workbook: Workbook, sheet: Any) -> Rows:
    """The header as row 0, then the other rows, all with as many cells."""
    header: list[str] = []
    row = 0  # below the header
    try:
        for place, cells in enumerate(_cells(file, sheet), start=1):
            if header:
                row += 1
                yield row, _fitting(file, row, place, cells, len(header))
            elif found := _trimmed(cells):
                header = found
                yield 0, header
    finally:
        workbook.close()


def _fitting(file: str, row: int, place: int, cells: list[str], width: int) -> list[str]:
    """As many cells as the header has. Raises `BrokenRows` if more of them hold something."""
    found = _trimmed(cells)
    if len(found) > width:
        problem = f"cell {get_column_letter(len(found))}{place} is in a column without a name"
        raise BrokenRows(file=file, row=row, problem=problem)
    return (cells + [""] * width)[:width]


def _trimmed(cells: list[str]) -> list[str]:
    """Without what is blank at the end."""
    width = len(cells)
    while width and not cells[width - 1].strip():
        width -= 1
    return cells[:width]


def _cells(file: str, sheet: Any) -> Iterator[list[str]]:
    """All rows from the first on, also those that the file leaves out."""
    sheet.reset_dimensions()  # what the file says of them may be wrong
    rows = sheet.iter_rows(values_only=True)
    read = 0
    while True:
        with _parsing(file):
            parsed = list(islice(rows, AT_ONCE))
        if not parsed:
            return
        for values in parsed:
            yield list(map(_text, values))
        read += len(parsed)
        if read > LAST_ROW:
            raise DataTooLarge(file=file, what="the number of rows", limit=f"{LAST_ROW:,}")


@contextmanager
def _parsing(file: str) -> Iterator[None]:
    """Raises `UnsupportedFormat` for whatever openpyxl raises: it checks little by itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it would lose when it writes the file
            yield
    except (LoraCoreError, MemoryError):
        raise
    except Exception as error:
        raise UnsupportedFormat(file=file, reason="it is damaged") from error


def _text(value: Any) -> str:
    """What a cell holds: a whole number without a point, a date as 2026-03-31."""
    match value:
        case None:
            return ""
        case str():
            return value.replace("_x000D_\n", "\n").replace("_x000D_", "\n")
        case bool():
            return str(value).lower()
        case float():
            return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.15g}"
        case datetime() if value.time() == time():
            return value.date().isoformat()
        case datetime():
            return value.isoformat(" ", "seconds")
        case _:
            return str(value)
