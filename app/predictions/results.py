"""Results of a prediction run for download: the stored JSON lines, or CSV."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, BinaryIO, Literal

from app.csv_cells import escape_formula
from lora_core.specs.predict import LABEL, SCORE, SCORES

ResultsFormat = Literal["jsonl", "csv"]
MEDIA_TYPES: dict[ResultsFormat, str] = {
    "jsonl": "application/jsonl; charset=utf-8",
    "csv": "text/csv; charset=utf-8; header=present",
}
CHUNK_BYTES = 1 << 18  # bytes
ROWS_PER_CHUNK = 200  # converted to CSV at a time


def iterate_jsonl(file: BinaryIO) -> Iterator[bytes]:
    """Yield the bytes of the file, and close it at the end."""
    with file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def iterate_csv(
    file: BinaryIO, *, columns: Sequence[str], labels: Sequence[str], spreadsheet: bool = False
) -> Iterator[bytes]:
    """Yield CSV: the columns are the file's `columns`, label, score, and the score of each label.

    Lists, objects, true and false are written as JSON, null as an empty cell. With `spreadsheet`,
    cells are escaped so that a spreadsheet does not run them as formulas.
    """

    def encode(rows: list[list[Any]]) -> bytes:
        return _csv_bytes(
            [[escape_formula(cell) for cell in row] for row in rows] if spreadsheet else rows
        )

    with file:
        yield encode([[*columns, LABEL, SCORE, *(f"{SCORES}.{label}" for label in labels)]])
        while lines := list(islice(file, ROWS_PER_CHUNK)):
            yield encode([_csv_cells(json.loads(line), columns, labels) for line in lines])


def _csv_cells(row: dict[str, Any], columns: Sequence[str], labels: Sequence[str]) -> list[Any]:
    named = [_csv_cell(row.get(name)) for name in (*columns, LABEL, SCORE)]
    return [*named, *(row[SCORES][label] for label in labels)]


def _csv_cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, bool | list | dict) else value


def _csv_bytes(rows: Sequence[Sequence[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
