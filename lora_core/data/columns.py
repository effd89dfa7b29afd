"""Inspect the columns and first rows of a file, and guess which columns hold texts and labels."""

import json
import shlex
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from lora_core.data import files, json_lines
from lora_core.data.limits import MAX_COLUMNS
from lora_core.data.rows import SPLIT_COLUMN, ColumnSelection
from lora_core.data.tabular import ParseInfo
from lora_core.errors.data import DataError, DataTooLarge, MissingColumn
from lora_core.specs.fields import FrozenModel

GUESS_ROWS = 200  # rows that a guess is based on
PREVIEW_ROWS = 5
PREVIEW_CHARACTERS = 200  # shown of a cell
MIN_LABEL_REPEATS = 2  # minimum mean number of rows per label

# column names, cells of the first rows, how they were parsed
FileHead = tuple[list[str], list[list[str]], ParseInfo]


class ColumnGuess(NamedTuple):
    """The columns of texts and labels; None if unknown."""

    text: str | None
    label: str | None


class FileColumns(FrozenModel):
    """The columns of a file, and its first rows as strings."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # the first rows, long cells truncated
    text_column: str | None  # a guess
    label_column: str | None  # a guess
    encoding: str | None
    separator: str | None
    sheet: str | None
    sheets: tuple[str, ...]  # visible sheets of the workbook


def inspect_columns(path: Path, sheet: str | None = None) -> FileColumns:
    """Return the columns and first rows of a file. Raises what `files.read_rows` raises, except for
    columns and labels."""
    names, rows, info = _read_head(path, sheet)
    guessed = guess_columns(names, rows)
    return FileColumns(
        columns=tuple(names),
        rows=tuple(tuple(cell[:PREVIEW_CHARACTERS] for cell in row) for row in rows[:PREVIEW_ROWS]),
        text_column=guessed.text,
        label_column=guessed.label,
        encoding=info.encoding,
        separator=info.separator,
        sheet=info.sheet,
        sheets=info.sheets,
    )


def guess_columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> ColumnGuess:
    """Guess by name (`text` and `label` in any case), else by content.

    By content, texts are the column with the longest cells, and labels the one with the fewest
    distinct values. Labels are repeated: a column of unique values or of a single value is no
    label.
    """
    columns = {name: [row[i] for row in rows] for i, name in enumerate(names) if name.strip()}
    by_name = {name.strip().casefold(): name for name in columns}
    text = by_name.get("text") or max(
        (name for name, cells in columns.items() if any(cells)),
        key=lambda name: sum(map(len, columns[name])),
        default=None,
    )
    candidates = {}
    for name, cells in columns.items():
        filled = [cell for cell in cells if cell.strip()]
        distinct = len(set(filled))
        repeated = 2 <= distinct <= len(filled) / MIN_LABEL_REPEATS
        if repeated and name != text and name.casefold() != SPLIT_COLUMN:
            candidates[name] = distinct
    label = by_name.get("label") or min(candidates, key=lambda name: candidates[name], default=None)
    return ColumnGuess(text, label if label != text else None)


def suggest_columns(path: Path, selected: ColumnSelection, error: MissingColumn) -> MissingColumn:
    """Return the same error with a suggestion of columns, if the first rows can be read."""
    try:
        names, rows, _ = _read_head(path, selected.sheet)
    except DataError:
        return error
    text, label = guess_columns(names, rows)
    guessed = {"text_column": text, "label_column": selected.label and label}
    suggested = {name: column for name, column in guessed.items() if column is not None}
    if not suggested or error.detail["column"] == selected.split:
        return error
    options = [f"--{name.replace('_', '-')} {shlex.quote(suggested[name])}" for name in suggested]
    fields = [f"`{name}` {column!r}" for name, column in suggested.items()]
    advice = f"You probably want {' and '.join(fields)} (`{' '.join(options)}`)"
    return MissingColumn(**{**error.detail, "advice": advice, **suggested})


def _read_head(path: Path, sheet: str | None) -> FileHead:
    suffix = files.check_file(path, sheet)
    info = ParseInfo()
    match suffix:
        case ".parquet":
            names, rows = _parquet(path)
        case ".jsonl":
            objects = [record for _, record in islice(json_lines.read_objects(path), GUESS_ROWS)]
            names = list(dict.fromkeys(name for each in objects for name in each))
            rows = [[_as_text(each.get(name)) for name in names] for each in objects]
        case _:
            table = files.open_table(path, suffix, sheet)
            names, info = table.header, table.parse_info
            rows = [cells for _, cells in islice(table.rows, GUESS_ROWS)]
    if len(names) > MAX_COLUMNS:
        raise DataTooLarge(file=path.name, what="the number of columns", limit=f"{MAX_COLUMNS:,}")
    return names, rows, info


def _parquet(path: Path) -> tuple[list[str], list[list[str]]]:
    from lora_core.data import arrow  # pyarrow is slow to import
    from lora_core.data.arrow import ArrowDecoder

    with arrow.open_parquet(path) as file:
        names = list(file.schema_arrow.names)
        decoder = ArrowDecoder(path.name)
        batches = arrow.iter_batches(file, names[:MAX_COLUMNS])
        values = (map(decoder.decode_column, batch.columns) for batch in batches)
        rows = chain.from_iterable(zip(*each, strict=True) for each in values)
        return names, [list(map(_as_text, row)) for row in islice(rows, GUESS_ROWS)]


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
