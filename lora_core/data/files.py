"""Read the rows of a data file, by its suffix."""

import os
from dataclasses import dataclass
from pathlib import Path

from lora_core.data import delimited, json_lines
from lora_core.data.limits import MAX_BYTES
from lora_core.data.rows import ColumnSelection, NumberedCells, TextRow, collect_rows
from lora_core.data.tabular import ParseInfo, StringTable
from lora_core.errors.data import (
    DataNotFound,
    DataTooLarge,
    EmptyData,
    MissingSheet,
    UnsupportedFormat,
)
from lora_core.specs.data import file_suffix

PARQUET_MAGIC = b"PAR1"
ZIP_MAGIC = b"PK\x03\x04"
OLE_MAGIC = b"\xd0\xcf\x11\xe0"  # an OLE compound file: .xls, and .xlsx with a password
WRONG_FORMAT_REASONS = {  # what is often saved as a text file, by its first bytes
    PARQUET_MAGIC: "it is a Parquet file with another suffix",
    b"PAR": "it is an encrypted Parquet file",
    ZIP_MAGIC: "it is a zip archive or a spreadsheet; a spreadsheet needs the suffix .xlsx",
    b"\x1f\x8b": "it is compressed; decompress it first",
    b"%PDF": "it is a PDF",
    OLE_MAGIC: "it is a spreadsheet in an old format; save it as .xlsx",
}


@dataclass(frozen=True)
class OpenedFile:
    """A file whose rows can be read. `parse_info` is complete once all rows have been read."""

    cells: NumberedCells
    parse_info: ParseInfo


def read_rows(path: Path, columns: ColumnSelection) -> list[TextRow]:
    """Return all rows of a `.csv`, `.tsv`, `.xlsx`, `.jsonl` or `.parquet` file.

    Nothing is repaired, and only rows without any non-blank cell are skipped.

    Raises `DataNotFound`, `UnsupportedFormat`, `EmptyData`, `DataTooLarge`, and what the reader of
    the format raises.
    """
    return read_rows_and_info(path, columns)[0]


def read_rows_and_info(path: Path, columns: ColumnSelection) -> tuple[list[TextRow], ParseInfo]:
    """Return all rows, and how the file was parsed. Raises what `read_rows` raises."""
    try:
        opened = open_file(path, columns)
        return collect_rows(path.name, opened.cells), opened.parse_info
    except MemoryError as error:
        raise DataTooLarge(
            file=path.name, what="its content", limit="the available memory"
        ) from error


def iter_cells(path: Path, columns: ColumnSelection) -> NumberedCells:
    """Yield the cells of the selected columns, row by row, without holding all rows in memory.

    Raises what `read_rows` raises, except for missing texts and labels.
    """
    return open_file(path, columns).cells


def open_file(path: Path, columns: ColumnSelection) -> OpenedFile:
    """Open a file to read the selected columns. Raises what `iter_cells` raises, here or while
    reading."""
    match check_file(path, columns.sheet):
        case ".parquet":
            # pyarrow is slow to import, and most files do not need it
            from lora_core.data import arrow

            return OpenedFile(arrow.iter_cells(path, columns), ParseInfo())
        case ".jsonl":
            return OpenedFile(json_lines.iter_cells(path, columns), ParseInfo())
        case suffix:
            table = open_table(path, suffix, columns.sheet)
            return OpenedFile(table.iter_cells(columns), table.parse_info)


def open_table(path: Path, suffix: str, sheet: str | None) -> StringTable:
    """Open a `.csv`, `.tsv` or `.xlsx` file that was checked. Raises what their readers raise."""
    if suffix == ".xlsx":
        from lora_core.data import spreadsheet  # slow to import, like pyarrow

        return spreadsheet.open_table(path, sheet)
    return delimited.open_table(path, "," if suffix == ".csv" else "\t")


def check_file(path: Path, sheet: str | None = None) -> str:
    """Return the suffix of a file whose size and first bytes are plausible for it.

    Raises `DataNotFound`, `UnsupportedFormat`, `EmptyData`, `DataTooLarge`, and `MissingSheet` if a
    sheet is named for a file that is not a workbook.
    """
    if not os.path.isfile(path):  # False instead of an error for a name that is too long
        reason = "it is a directory" if os.path.isdir(path) else "there is no such file"
        raise DataNotFound(source=path.name, reason=reason)
    suffix = file_suffix(path.name)
    size = path.stat().st_size
    if size == 0:
        raise EmptyData(file=path.name)
    if size > MAX_BYTES:
        raise DataTooLarge(file=path.name, what="its size", limit=f"{MAX_BYTES:,} bytes")
    _check_start(path, suffix)
    if sheet is not None and suffix != ".xlsx":
        raise MissingSheet(
            file=path.name, sheet=sheet, available="none, only .xlsx files have sheets"
        )
    return suffix


def _check_start(path: Path, suffix: str) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    if suffix == ".parquet":
        _check_magic(path.name, start, PARQUET_MAGIC[:3], "it is not a Parquet file")
    elif suffix == ".xlsx":
        if start.startswith(OLE_MAGIC):
            reason = "it has a password or an old format; save it as .xlsx without a password"
            raise UnsupportedFormat(file=path.name, reason=reason)
        _check_magic(path.name, start, ZIP_MAGIC, "it is not an Excel workbook")
    else:
        for magic, reason in WRONG_FORMAT_REASONS.items():
            if start.startswith(magic):
                raise UnsupportedFormat(file=path.name, reason=reason)


def _check_magic(file: str, start: bytes, magic: bytes, reason: str) -> None:
    if not start.startswith(magic):
        raise UnsupportedFormat(file=file, reason=reason)
