"""Which columns a file has, what stands in its first rows, and which are probably wanted."""

import json
import shlex
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from lora_core.data import files, json_lines
from lora_core.data.limits import MAX_COLUMNS
from lora_core.data.rows import SPLIT_COLUMN, Columns
from lora_core.data.tabular import Reading
from lora_core.errors.data import DataError, DataTooLarge, MissingColumn
from lora_core.specs.frozen import Frozen

LOOKED_AT = 200  # rows by which a guess is made
SHOWN = 5  # rows
CHARACTERS = 200  # of a cell that are shown
LABEL_REPEATS = 2  # rows a label has on average, at least

Found = tuple[list[str], list[list[str]], Reading]  # names, cells of the first rows


class Guess(NamedTuple):
    """The columns of texts and labels; None: that cannot be told."""

    text: str | None
    label: str | None


class FileColumns(Frozen):
    """The columns of a file, and some rows of it as strings."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # the first ones, long cells cut
    text_column: str | None  # a guess
    label_column: str | None  # a guess
    encoding: str | None
    separator: str | None
    sheet: str | None
    sheets: tuple[str, ...]  # that the workbook shows


def look(path: Path, sheet: str | None = None) -> FileColumns:
    """The first rows of a file. Raises what `files.read` raises, but for columns and labels."""
    names, rows, reading = _found(path, sheet)
    guessed = guess(names, rows)
    return FileColumns(
        columns=tuple(names),
        rows=tuple(tuple(cell[:CHARACTERS] for cell in row) for row in rows[:SHOWN]),
        text_column=guessed.text,
        label_column=guessed.label,
        encoding=reading.encoding,
        separator=reading.separator,
        sheet=reading.sheet,
        sheets=reading.sheets,
    )


def guess(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Guess:
    """`text` and `label` in any case; else the longest texts, and the fewest different values.

    A label is shorter than the texts and comes back: unique values are none, nor is one alone.
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
        repeated = 2 <= distinct <= len(filled) / LABEL_REPEATS
        if repeated and name != text and name.casefold() != SPLIT_COLUMN:
            candidates[name] = distinct
    label = by_name.get("label") or min(candidates, key=lambda name: candidates[name], default=None)
    return Guess(text, label if label != text else None)


def advised(path: Path, wanted: Columns, error: MissingColumn) -> MissingColumn:
    """The same error with a guess which columns are meant, where the first rows are sound."""
    try:
        names, rows, _ = _found(path, wanted.sheet)
    except DataError:
        return error
    text, label = guess(names, rows)
    guessed = {"text_column": text, "label_column": wanted.label and label}
    known = {name: column for name, column in guessed.items() if column is not None}
    if not known or error.detail["column"] == wanted.split:
        return error
    options = [f"--{name.replace('_', '-')} {shlex.quote(known[name])}" for name in known]
    fields = [f"`{name}` {column!r}" for name, column in known.items()]
    advice = f"Probably you want {' and '.join(fields)} (`{' '.join(options)}`)"
    return MissingColumn(**{**error.detail, "advice": advice, **known})


def _found(path: Path, sheet: str | None) -> Found:
    ending = files.check(path, sheet)
    reading = Reading()
    match ending:
        case ".parquet":
            names, rows = _parquet(path)
        case ".jsonl":
            objects = [found for _, found in islice(json_lines.read_objects(path), LOOKED_AT)]
            names = list(dict.fromkeys(name for each in objects for name in each))
            rows = [[_shown(each.get(name)) for name in names] for each in objects]
        case _:
            table = files.open_table(path, ending, sheet)
            names, reading = table.header, table.reading
            rows = [cells for _, cells in islice(table.rows, LOOKED_AT)]
    if len(names) > MAX_COLUMNS:
        raise DataTooLarge(file=path.name, what="the number of columns", limit=f"{MAX_COLUMNS:,}")
    return names, rows, reading


def _parquet(path: Path) -> tuple[list[str], list[list[str]]]:
    from lora_core.data import arrow  # as in `files`
    from lora_core.data.arrow import ArrowCells

    with arrow.opened(path) as file:
        names = list(file.schema_arrow.names)
        cells = ArrowCells(path.name)
        batches = arrow.batches(file, names[:MAX_COLUMNS])
        values = (map(cells.values, batch.columns) for batch in batches)
        rows = chain.from_iterable(zip(*each, strict=True) for each in values)
        return names, [list(map(_shown, row)) for row in islice(rows, LOOKED_AT)]


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
