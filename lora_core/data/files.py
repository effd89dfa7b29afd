"""One file to rows, by its ending."""

import os
from pathlib import Path

from lora_core.data import delimited, json_lines
from lora_core.data.limits import MAX_BYTES
from lora_core.data.rows import Columns, Numbered, Row, collect
from lora_core.errors.data import DataNotFound, DataTooLarge, EmptyData, UnsupportedFormat
from lora_core.specs.data import ENDINGS

PARQUET = b"PAR1"
OTHERS = {  # what a text file is often taken for, by its first bytes
    PARQUET: "it is a Parquet file with another ending",
    b"PAR": "it is an encrypted Parquet file",
    b"PK\x03\x04": "it is a zip archive or a spreadsheet; export it as CSV",
    b"\x1f\x8b": "it is compressed; unpack it first",
    b"%PDF": "it is a PDF",
    b"\xd0\xcf\x11\xe0": "it is a spreadsheet of an old kind; export it as CSV",
}


def read(path: Path, columns: Columns) -> list[Row]:
    """All rows of a `.csv`, `.tsv`, `.jsonl` or `.parquet` file. Nothing is skipped or repaired.

    Raises `DataNotFound`, `UnsupportedFormat`, `EmptyData`, `DataTooLarge`, and what the reader of
    the format raises.
    """
    try:
        return collect(path.name, cells(path, columns))
    except MemoryError as error:
        raise DataTooLarge(file=path.name, what="its content", limit="the memory here") from error


def cells(path: Path, columns: Columns) -> Numbered:
    """The cells of these columns, row by row, never all of them in memory.

    Raises what `read` raises, but for empty texts and labels.
    """
    match check(path):
        case ".parquet":
            from lora_core.data import parquet  # Arrow loads slowly, and most files need none

            return parquet.cells(path, columns)
        case ".jsonl":
            return json_lines.cells(path, columns)
        case ending:
            return delimited.cells(path, columns, "," if ending == ".csv" else "\t")


def check(path: Path) -> str:
    """The ending of a file that looks as it promises.

    Raises `DataNotFound`, `UnsupportedFormat`, `EmptyData`, `DataTooLarge`.
    """
    if not os.path.isfile(path):  # False, not an error, for a name that is too long
        reason = "it is a directory" if os.path.isdir(path) else "there is no such file"
        raise DataNotFound(source=path.name, reason=reason)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise UnsupportedFormat(file=path.name, reason=f"its name ends in {ending or 'nothing'!r}")
    size = path.stat().st_size
    if size == 0:
        raise EmptyData(file=path.name)
    if size > MAX_BYTES:
        raise DataTooLarge(file=path.name, what="its size", limit=f"{MAX_BYTES:,} bytes")
    _check_start(path, ending)
    return ending


def _check_start(path: Path, ending: str) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    if ending == ".parquet":
        if not start.startswith(PARQUET[:3]):
            raise UnsupportedFormat(file=path.name, reason="it is not a Parquet file")
        return
    for magic, reason in OTHERS.items():
        if start.startswith(magic):
            raise UnsupportedFormat(file=path.name, reason=reason)
