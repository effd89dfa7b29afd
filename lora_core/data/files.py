"""One file to rows, by its ending."""

import os
from dataclasses import dataclass
from pathlib import Path

from lora_core.data import delimited, json_lines
from lora_core.data.limits import MAX_BYTES
from lora_core.data.rows import Columns, Numbered, Row, collect
from lora_core.data.tabular import Reading, Table
from lora_core.errors.data import (
    DataNotFound,
    DataTooLarge,
    EmptyData,
    MissingSheet,
    UnsupportedFormat,
)
from lora_core.specs.data import ending_of

PARQUET = b"PAR1"
ZIP = b"PK\x03\x04"
OLD_OFFICE = b"\xd0\xcf\x11\xe0"  # a compound file; that of a new workbook with a password, too
OTHERS = {  # what a text file is often taken for, by its first bytes
    PARQUET: "it is a Parquet file with another ending",
    b"PAR": "it is an encrypted Parquet file",
    ZIP: "it is a zip archive or a spreadsheet; a spreadsheet needs the ending .xlsx",
    b"\x1f\x8b": "it is compressed; unpack it first",
    b"%PDF": "it is a PDF",
    OLD_OFFICE: "it is a spreadsheet of an old kind; save it as .xlsx",
}


@dataclass(frozen=True)
class Opened:
    """A file of which rows can be read; `reading` is complete when all of them were."""

    cells: Numbered
    reading: Reading


def read(path: Path, columns: Columns) -> list[Row]:
    """All rows of a `.csv`, `.tsv`, `.xlsx`, `.jsonl` or `.parquet` file.

    Nothing is repaired, and nothing is skipped but rows without a single cell filled in.

    Raises `DataNotFound`, `UnsupportedFormat`, `EmptyData`, `DataTooLarge`, and what the reader of
    the format raises.
    """
    return read_opened(path, columns)[0]


def read_opened(path: Path, columns: Columns) -> tuple[list[Row], Reading]:
    """All rows, and how they were read. Raises what `read` raises."""
    try:
        opened = open_file(path, columns)
        return collect(path.name, opened.cells), opened.reading
    except MemoryError as error:
        raise DataTooLarge(file=path.name, what="its content", limit="the memory here") from error


def cells(path: Path, columns: Columns) -> Numbered:
    """The cells of these columns, row by row, never all of them in memory.

    Raises what `read` raises, but for empty texts and labels.
    """
    return open_file(path, columns).cells


def open_file(path: Path, columns: Columns) -> Opened:
    """The cells of these columns. Raises, here or while they are read, what `cells` raises."""
    match check(path, columns.sheet):
        case ".parquet":
            from lora_core.data import arrow  # Arrow loads slowly, and most files need none

            return Opened(arrow.cells(path, columns), Reading())
        case ".jsonl":
            return Opened(json_lines.cells(path, columns), Reading())
        case ending:
            table = open_table(path, ending, columns.sheet)
            return Opened(table.cells(columns), table.reading)


def open_table(path: Path, ending: str, sheet: str | None) -> Table:
    """A `.csv`, `.tsv` or `.xlsx` file that was checked. Raises what their readers raise."""
    if ending == ".xlsx":
        from lora_core.data import spreadsheet  # as Arrow

        return spreadsheet.open_table(path, sheet)
    return delimited.open_table(path, "," if ending == ".csv" else "\t")


def check(path: Path, sheet: str | None = None) -> str:
    """The ending of a file that looks as it promises.

    Raises `DataNotFound`, `UnsupportedFormat`, `EmptyData`, `DataTooLarge`; `MissingSheet` for a
    sheet of a file that has none.
    """
    if not os.path.isfile(path):  # False, not an error, for a name that is too long
        reason = "it is a directory" if os.path.isdir(path) else "there is no such file"
        raise DataNotFound(source=path.name, reason=reason)
    ending = ending_of(path.name)
    size = path.stat().st_size
    if size == 0:
        raise EmptyData(file=path.name)
    if size > MAX_BYTES:
        raise DataTooLarge(file=path.name, what="its size", limit=f"{MAX_BYTES:,} bytes")
    _check_start(path, ending)
    if sheet is not None and ending != ".xlsx":
        raise MissingSheet(file=path.name, sheet=sheet, available="none, only .xlsx files have any")
    return ending


def _check_start(path: Path, ending: str) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    if ending == ".parquet":
        _check_magic(path.name, start, PARQUET[:3], "it is not a Parquet file")
    elif ending == ".xlsx":
        if start.startswith(OLD_OFFICE):
            reason = "it has a password, or is of an old kind; save it as .xlsx without a password"
            raise UnsupportedFormat(file=path.name, reason=reason)
        _check_magic(path.name, start, ZIP, "it is not an Excel workbook")
    else:
        for magic, reason in OTHERS.items():
            if start.startswith(magic):
                raise UnsupportedFormat(file=path.name, reason=reason)


def _check_magic(file: str, start: bytes, magic: bytes, reason: str) -> None:
    if not start.startswith(magic):
        raise UnsupportedFormat(file=file, reason=reason)
