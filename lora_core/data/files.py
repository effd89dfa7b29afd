"""Read a data file, by its suffix: the selected columns, or whole rows."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from lora_core.data import label_studio, mistral_labels, text_files
from lora_core.data.rows import (
    MAX_BYTES,
    SEPARATORS,
    ColumnSelection,
    NumberedCells,
    ParseInfo,
    TableWithHeader,
    TextRow,
    check_column_limit,
    collect_rows,
    find_column,
)
from lora_core.errors.data import (
    DataNotFound,
    DataTooLarge,
    EmptyData,
    IncompletePair,
    MalformedRow,
    MissingSheet,
    MissingText,
    ReservedColumn,
    UnsupportedFormat,
)
from lora_core.specs.chat import PromptFormat
from lora_core.specs.data import parse_file_suffix
from lora_core.specs.predict import RESERVED_COLUMNS, SCORES
from lora_core.specs.text_input import TextInput

# What results add to a row; of several targets in CSV, it comes after the name of the target.
_OUTPUT_COLUMN = re.compile(
    rf"(.*\.)?({'|'.join(sorted(RESERVED_COLUMNS))}|{SCORES}\..*)", re.DOTALL
)
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
    """Return all rows of a `.csv`, `.tsv`, `.xlsx`, `.jsonl`, `.json` or `.parquet` file.

    Nothing is repaired, and only rows without any non-blank cell are skipped.

    Raises `DataNotFound`, `UnsupportedFormat`, `EmptyData`, `DataTooLarge`, and what the reader of
    the format raises.
    """
    return read_rows_and_info(path, columns)[0]


def read_rows_and_info(path: Path, columns: ColumnSelection) -> tuple[list[TextRow], ParseInfo]:
    """Return all rows, and how the file was parsed. Raises what `read_rows` raises."""
    try:
        opened = open_rows(path, columns)
        info = opened.parse_info
        return collect_rows(path.name, opened.cells, columns, info), info
    except MemoryError as error:
        raise DataTooLarge(
            file=path.name, what="its content", limit="the available memory"
        ) from error


def open_rows(path: Path, columns: ColumnSelection) -> OpenedFile:
    """Open a file to read the selected columns, without holding all rows in memory.

    Raises what `read_rows` raises except for missing texts and labels, here or while reading.
    """
    match validate_file_and_get_suffix(path, columns.sheet):
        case ".parquet":
            # pyarrow is slow to import, and most files do not need it
            from lora_core.data import arrow

            return OpenedFile(arrow.iter_parquet_rows(path, columns), ParseInfo())
        case ".jsonl":
            objects, prompt_format = mistral_labels.read_jsonl_as_flat_objects(path, columns)
            rows = text_files.select_json_columns(path.name, objects, columns)
            return OpenedFile(rows, ParseInfo(prompt_format=prompt_format))
        case ".json":
            info = ParseInfo()
            objects = label_studio.read_flattened_tasks(path, columns, info)
            return OpenedFile(text_files.select_json_columns(path.name, objects, columns), info)
        case suffix:
            table = open_table(path, suffix, columns.sheet)
            return OpenedFile(table.iter_row_cells(columns), table.parse_info)


def infer_file_prompt_format(path: Path, columns: ColumnSelection) -> PromptFormat | None:
    """Return the prompt format of a file in chat form; None for other files.

    Raises what `read_rows` raises.
    """
    if validate_file_and_get_suffix(path, columns.sheet) != ".jsonl":
        return None
    return mistral_labels.read_jsonl_as_flat_objects(path, columns)[1]


def open_table(path: Path, suffix: str, sheet: str | None) -> TableWithHeader:
    """Open a `.csv`, `.tsv` or `.xlsx` file that was checked. Raises what their readers raise."""
    if suffix == ".xlsx":
        from lora_core.data import spreadsheet  # slow to import, like pyarrow

        return spreadsheet.open_sheet(path, sheet)
    return text_files.open_delimited(path, "," if suffix == ".csv" else "\t")


_HEADER_ROWS = 11  # in which a header below a title is looked for


def find_misplaced_header_row(path: Path, columns: ColumnSelection) -> int | None:
    """Return the row of a table, counted from 1, with the names of all selected columns; None if
    none of the next rows after the first has them. Raises what the reader of workbooks raises."""
    match path.suffix.lower():
        case ".xlsx":
            from lora_core.data import spreadsheet

            readings = [spreadsheet.read_first_rows(path, columns.sheet, _HEADER_ROWS)]
        case ".csv" | ".tsv":
            readings = [
                text_files.read_first_records(path, separator, _HEADER_ROWS)
                for separator in SEPARATORS
            ]
        case _:
            return None
    wanted = [*columns.text_columns, *columns.label_columns, *filter(None, [columns.split])]
    for rows in readings:
        for number, cells in enumerate(rows[1:], start=2):
            if all(find_column(name, cells) is not None for name in wanted):
                return number
    return None


def validate_file_and_get_suffix(path: Path, sheet: str | None = None) -> str:
    """Return the suffix of a file whose size and first bytes are plausible for it.

    Raises `DataNotFound`, `UnsupportedFormat`, `EmptyData`, `DataTooLarge`, and `MissingSheet` if a
    sheet is named for a file that is not a workbook.
    """
    if not os.path.isfile(path):  # False instead of an error for a name that is too long
        reason = "it is a directory" if os.path.isdir(path) else "there is no such file"
        raise DataNotFound(source=path.name, reason=reason)
    suffix = parse_file_suffix(path.name)
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


# -- Whole rows, for batch predictions that are written next to them ------------------------------


class WholeRow(NamedTuple):
    """One row. `number` is the row number that users see: 1 is the first data row."""

    number: int
    text: TextInput
    cells: dict[str, Any]  # the whole row as JSON values


def add_texts_to_digest(digest: "hashlib._Hash", rows: Iterable[WholeRow]) -> int:
    """Add the texts of rows to a digest, and return the number of rows."""
    count = 0
    for row in rows:
        digest.update(json.dumps(row.text).encode())
        count += 1
    return count


def iter_whole_rows(
    path: Path, text_column: str, sheet: str | None = None, *, pair_column: str | None = None
) -> Iterator[WholeRow]:
    """Yield the rows of a `.csv`, `.tsv`, `.xlsx`, `.jsonl`, `.json` or `.parquet` file.

    With `pair_column`, the text of a record is a pair. Raises what `read_rows` raises, and
    `ReservedColumn`.
    """
    columns = ColumnSelection(text_column, label=None, pair=pair_column)
    suffix = validate_file_and_get_suffix(path, sheet)
    match suffix:
        case ".parquet":
            rows = _parquet_records(path, columns)
        case ".jsonl":
            rows = _json_records(path.name, text_files.iter_json_lines(path), columns)
        case ".json":
            objects = label_studio.read_flattened_tasks(path, columns, ParseInfo())
            rows = _json_records(path.name, objects, columns)
        case _:
            rows = _tabular_records(open_table(path, suffix, sheet), columns)
    first = next(rows, None)
    if first is None:
        raise EmptyData(file=path.name)
    for number, text_cells, cells in chain([first], rows):
        texts = [_checked_text(path.name, number, cell) for cell in text_cells]
        if not any(texts):
            raise MissingText(file=path.name, count=1, rows=number)
        if not all(texts):
            raise IncompletePair(file=path.name, count=1, rows=number)
        yield WholeRow(number, texts[0] if pair_column is None else (texts[0], texts[1]), cells)


def _checked_text(file: str, number: int, text: Any) -> str:
    """Return the text unchanged, or "" if it is missing or only white space."""
    if text is not None and not isinstance(text, str):
        problem = f"the text is a {type(text).__name__}, not a string"
        raise MalformedRow(file=file, row=number, problem=problem)
    return text if text and text.strip() else ""


_Objects = Iterator[tuple[int, dict[str, Any]]]
_Records = Iterator[tuple[int, list[Any], dict[str, Any]]]  # row number, texts, all cells


def _tabular_records(table: TableWithHeader, columns: ColumnSelection) -> _Records:
    header = [
        name if name.strip() or table.header.count(name) == 1 else f"column {_column_letters(i)}"
        for i, name in enumerate(table.header)
    ]
    text_columns = _check_names(table.file, header, columns)
    for number, cells in table.rows:
        row = dict(zip(header, cells, strict=True))
        texts = [row[name] for name in text_columns]
        table.check_formula_errors(number, texts)
        yield number, texts, row


def _column_letters(position: int) -> str:
    """Return the name of a column in a spreadsheet: A for 0, AA for 26."""
    tens, ones = divmod(position, 26)
    return (_column_letters(tens - 1) if tens else "") + chr(ord("A") + ones)


def _json_records(file: str, objects: _Objects, columns: ColumnSelection) -> _Records:
    seen_names: set[str] = set()
    text_columns: list[str] = []
    for number, cells_by_name in objects:
        if not seen_names:
            text_columns = _check_names(file, list(cells_by_name), columns)
        if new_names := cells_by_name.keys() - seen_names:
            seen_names |= new_names
            _check_reserved(file, list(seen_names))
        texts = [
            text_files.require_json_field(file, number, cells_by_name, name)
            for name in text_columns
        ]
        yield number, texts, _check_json(file, number, cells_by_name)


def _parquet_records(path: Path, columns: ColumnSelection) -> _Records:
    from lora_core.data import arrow  # pyarrow is slow to import
    from lora_core.data.arrow import ArrowCellDecoder, check_column_types

    with arrow.open_parquet(path) as file:
        schema, names = file.schema_arrow, file.schema_arrow.names
        text_columns = _check_names(path.name, names, columns)
        types = [schema.field(name).type for name in text_columns]
        check_column_types(path.name, types, columns)
        decoder = ArrowCellDecoder(path.name)
        for batch in arrow.iter_batches(file, names):
            rows = zip(*map(decoder.decode_column, batch.columns), strict=True)
            for number, row in enumerate(rows, decoder.row + 1):
                cells_by_name = dict(zip(names, row, strict=True))
                json_cells = {
                    name: _to_json(path.name, number, value)
                    for name, value in cells_by_name.items()
                }
                yield number, [json_cells[name] for name in text_columns], json_cells
            decoder.row += len(batch)


def _check_names(file: str, names: Sequence[str], columns: ColumnSelection) -> list[str]:
    """Check the names of columns, and return those of the texts.

    Raises `MissingColumn`, `SameTextPairColumn`, `MalformedRow`, `ReservedColumn`, `DataTooLarge`.
    """
    text_columns = [names[i] for i in columns.find_positions(file, names)]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise MalformedRow(file=file, row=0, problem=f"column {duplicate!r} is duplicated")
    _check_reserved(file, names)
    return text_columns


def _check_reserved(file: str, names: Sequence[str]) -> None:
    """Raise `ReservedColumn` for the name of an output column, or `DataTooLarge`."""
    check_column_limit(file, names)
    for name in names:
        if _OUTPUT_COLUMN.fullmatch(name):
            raise ReservedColumn(file=file, column=name)


def _check_json(file: str, number: int, cells: dict[str, Any]) -> dict[str, Any]:
    """Return the cells. Some JSON can be read but not written: 1e999, a lone surrogate."""
    try:
        json.dumps(cells, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        problem = "a number out of range, or a lone surrogate, which is not a character"
        raise MalformedRow(file=file, row=number, problem=problem) from error
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
            raise MalformedRow(file=file, row=number, problem="a cell contains bytes, not text")
        case _:
            return str(cell)
