"""Excel workbooks (`.xlsx`): the values of one sheet, as strings.

Read row by row with openpyxl. Formulas return the value that Excel last computed. Links to other
files are not followed; macros, pictures and comments are not read.
"""

import warnings
import zipfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, time
from itertools import islice
from pathlib import Path
from typing import Any

from openpyxl import load_workbook
from openpyxl.utils import get_column_letter
from openpyxl.workbook import Workbook

from lora_core.data.rows import (
    MAX_BYTES,
    NumberedRows,
    ParseInfo,
    TableWithHeader,
    find_column,
)
from lora_core.errors import LoraCoreError
from lora_core.errors.data import (
    DataTooLarge,
    EmptyData,
    MalformedRow,
    MissingSheet,
    UnsupportedFormat,
)

CHUNK_ROWS = 128  # rows parsed at a time
MAX_SHEET_ROWS = 1 << 20  # the limit of Excel


def open_sheet(path: Path, sheet: str | None) -> TableWithHeader:
    """Open a sheet with a header: the one of this name, or the first visible one with any cells.

    Rows are numbered as in Excel, but from 1 below the header.

    Raises, here or while rows are read, `UnsupportedFormat` for a damaged file, `MissingSheet`,
    `EmptyData`, `MalformedRow`, `DataTooLarge`.
    """
    workbook = _open_workbook(path)
    try:
        worksheet = _choose_sheet(path.name, workbook, sheet)
        visible = tuple(
            entry.title for entry in workbook.worksheets if entry.sheet_state == "visible"
        )
        info = ParseInfo(sheet=worksheet.title, sheets=visible)
        return TableWithHeader.from_rows(path.name, info, _rows(path.name, workbook, worksheet))
    except BaseException:
        workbook.close()
        raise


def read_first_rows(path: Path, sheet: str | None, count: int) -> list[list[str]]:
    """Return the first rows of a sheet, blank ones too. Raises what `open_sheet` raises."""
    with closing(_open_workbook(path)) as workbook:
        return list(islice(_cells(path.name, _choose_sheet(path.name, workbook, sheet)), count))


def _open_workbook(path: Path) -> Workbook:
    with _parsing(path.name):
        _check_size(path)
        return load_workbook(path, read_only=True, data_only=True, keep_links=False)


def _check_size(path: Path) -> None:
    """Check the unpacked size that the archive declares, which bounds what is read of it."""
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
            raise DataTooLarge(
                file=path.name, what="its unpacked size", limit=f"{MAX_BYTES:,} bytes"
            )


def _choose_sheet(file: str, workbook: Workbook, name: str | None) -> Any:
    sheets = workbook.worksheets
    wanted = name and find_column(name, [sheet.title for sheet in sheets])
    for sheet in sheets:
        if sheet.title == wanted:
            return sheet
        if name is None and sheet.sheet_state == "visible" and _has_content(file, sheet):
            return sheet
    if name is None:
        raise EmptyData(file=file)
    raise MissingSheet(file=file, sheet=name, available=", ".join(entry.title for entry in sheets))


def _has_content(file: str, sheet: Any) -> bool:
    return any(cell.strip() for cells in _cells(file, sheet) for cell in cells)


def _rows(file: str, workbook: Workbook, sheet: Any) -> NumberedRows:
    """Yield the header as row 0, then the other rows, all with the same number of cells."""
    header: list[str] = []
    row = 0  # below the header
    try:
        for sheet_row, cells in enumerate(_cells(file, sheet), start=1):
            if header:
                row += 1
                yield row, _fit_to_width(file, row, sheet_row, cells, len(header))
            elif non_blank := _strip_trailing_blanks(cells):
                header = non_blank
                yield 0, header
    finally:
        workbook.close()


def _fit_to_width(file: str, row: int, sheet_row: int, cells: list[str], width: int) -> list[str]:
    """Return as many cells as the header has. Raises `MalformedRow` if there are more non-blank
    cells."""
    non_blank = _strip_trailing_blanks(cells)
    if len(non_blank) > width:
        problem = (
            f"cell {get_column_letter(len(non_blank))}{sheet_row} is in a column without a name"
        )
        raise MalformedRow(file=file, row=row, problem=problem)
    return (cells + [""] * width)[:width]


def _strip_trailing_blanks(cells: list[str]) -> list[str]:
    """Return the cells without the blank ones at the end."""
    width = len(cells)
    while width and not cells[width - 1].strip():
        width -= 1
    return cells[:width]


def _cells(file: str, sheet: Any) -> Iterator[list[str]]:
    """Yield all rows from the first on, including those that the file omits."""
    sheet.reset_dimensions()  # the dimensions in the file may be wrong
    rows = sheet.iter_rows(values_only=True)
    read = 0
    while True:
        with _parsing(file):
            parsed = list(islice(rows, CHUNK_ROWS))
        if not parsed:
            return
        for values in parsed:
            yield list(map(_cell_text, values))
        read += len(parsed)
        if read > MAX_SHEET_ROWS:
            raise DataTooLarge(file=file, what="the number of rows", limit=f"{MAX_SHEET_ROWS:,}")


@contextmanager
def _parsing(file: str) -> Iterator[None]:
    """Raise `UnsupportedFormat` for any exception of openpyxl, which validates little itself."""
    try:
        with warnings.catch_warnings():
            # about features that openpyxl would lose when writing the file
            warnings.simplefilter("ignore")
            yield
    except (LoraCoreError, MemoryError):
        raise
    except Exception as error:
        raise UnsupportedFormat(file=file, reason="it is damaged") from error


def _cell_text(value: Any) -> str:
    """Return a cell as text: an integer without a decimal point, a date as 2026-03-31."""
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
