"""Results as they go out: the stored lines as they are, or as CSV."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, Literal

from app.csv_cells import inert
from lora_core.specs.predict import LABEL, SCORE, SCORES

Format = Literal["jsonl", "csv"]
MEDIA_TYPES: dict[Format, str] = {
    "jsonl": "application/jsonl; charset=utf-8",
    "csv": "text/csv; charset=utf-8; header=present",
}
CHUNK = 1 << 18  # bytes
ROWS = 200  # turned into CSV at a time


def as_lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of the file, which is closed at the end."""
    with file:
        while piece := file.read(CHUNK):
            yield piece


def as_csv(
    file: BinaryIO, *, columns: Sequence[str], labels: Sequence[str], spreadsheet: bool = False
) -> Iterator[bytes]:
    """A header and one row a line: the file's `columns`, label, score, the score of each label.

    Lists and objects are written as JSON, true and false as JSON has them, null as nothing. With
    `spreadsheet` no cell is a formula to one.
    """

    def written(rows: list[list[Any]]) -> bytes:
        return _rows([[inert(cell) for cell in row] for row in rows] if spreadsheet else rows)

    with file:
        yield written([[*columns, LABEL, SCORE, *(f"{SCORES}.{label}" for label in labels)]])
        while lines := list(islice(file, ROWS)):
            yield written([_cells(json.loads(line), columns, labels) for line in lines])


def _cells(row: dict[str, Any], columns: Sequence[str], labels: Sequence[str]) -> list[Any]:
    named = [_cell(row.get(name)) for name in (*columns, LABEL, SCORE)]
    return [*named, *(row[SCORES][label] for label in labels)]


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | list | dict) else value


def _rows(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
