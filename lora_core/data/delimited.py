"""CSV and TSV files, parsed strictly, in the dialects that spreadsheets write.

Parsed with the standard library instead of `datasets`, whose errors do not report the row of a
broken quote, and which reads as much as it can of a damaged file.
"""

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lora_core.data import text_lines
from lora_core.data.limits import MAX_CELL_CHARACTERS
from lora_core.data.rows import SEPARATORS
from lora_core.data.tabular import NumberedRows, ParseInfo, StringTable
from lora_core.data.text_lines import TextLines, detect_line_end
from lora_core.errors import LoraCoreError
from lora_core.errors.data import DataTooLarge, InvalidRow

SNIFFED_ROWS = 20  # rows used to detect the separator
_SEP_LINE = re.compile(r'"?sep=([^"\r\n])"?\r?\n?')  # a first line that Excel understands


def open_table(path: Path, default: str) -> StringTable:
    """Open a file with a header. Cells may be quoted with `"`, doubled inside a cell.

    The separator is the one in a first line `sep=;`, else the one on which the header and the rows
    below agree, else `default`. Rows are numbered as in a spreadsheet, including blank lines, from
    1 below the header (0).

    Raises, here or while rows are read, `InvalidRow`, `WrongEncoding`, `NulByte`, `EmptyData`,
    `DataTooLarge`.
    """
    # The limit is global to the process and other threads may be reading, so it is never restored.
    csv.field_size_limit(MAX_CELL_CHARACTERS)
    file_encoding = text_lines.detect_encoding(path)
    line_end = detect_line_end(path, file_encoding)
    sep_line = _SEP_LINE.fullmatch(
        next(iter(TextLines(path, file_encoding, line_end=line_end)), "")
    )
    skipped = 1 if sep_line else 0
    separator = (
        sep_line[1]
        if sep_line
        else _detect_separator(TextLines(path, file_encoding, line_end=line_end), default)
    )
    info = ParseInfo(encoding=file_encoding.name, separator=separator)
    rows = _rows(TextLines(path, file_encoding, line_end=line_end), separator, skipped)
    return StringTable.from_rows(path.name, info, rows)


def _rows(lines: TextLines, separator: str, skipped: int) -> NumberedRows:
    """Yield the header as row 0, then the other rows, all with the same number of cells."""
    records = _records(lines, separator, skipped)
    header = next((cells for cells in records if any(cell.strip() for cell in cells)), None)
    if header is None:
        return
    yield 0, header
    lines.row = 1
    for cells in records:
        if cells:  # [] is a blank line
            if len(cells) != len(header) and any(cells):
                raise InvalidRow(
                    file=lines.file,
                    row=lines.row,
                    problem=_cell_count_problem(len(cells), len(header)),
                )
            yield lines.row, cells
        lines.row += 1


def _records(lines: TextLines, separator: str, skipped: int = 0) -> Iterator[list[str]]:
    try:
        yield from csv.reader(islice(lines, skipped, None), delimiter=separator, strict=True)
    except csv.Error as error:
        raise _parser_error(lines, str(error)) from error


def _detect_separator(lines: TextLines, default: str) -> str:
    """Return the separator that gives most rows as many cells as the header."""
    shares = {
        candidate: _agreement(lines, candidate)
        for candidate in dict.fromkeys((default, *SEPARATORS))
    }
    best = max(shares, key=lambda candidate: shares[candidate])  # on a tie the first one
    return best if shares[best] >= 0.5 else default


def _agreement(lines: TextLines, separator: str) -> float:
    """Return the share of the first rows with as many cells as the header; 0 for one cell.

    A damaged file is refused later, when it is read.
    """
    counts: list[int] = []
    try:
        for cells in islice(_records(lines, separator), SNIFFED_ROWS):
            counts += [len(cells)] if any(cells) else []
    except LoraCoreError:
        pass
    if not counts or counts[0] == 1:
        return 0
    return counts[1:].count(counts[0]) / len(counts[1:]) if counts[1:] else 1


def _parser_error(lines: TextLines, message: str) -> LoraCoreError:
    """Translate the message of the csv parser."""
    if "field limit" in message:
        what = f"a cell in row {lines.row} (is a quote left open?)"
        return DataTooLarge(file=lines.file, what=what, limit=f"{MAX_CELL_CHARACTERS:,} characters")
    if "unexpected end" in message:
        problem = "a quote is never closed"
    elif "new-line" in message:
        problem = "some lines end in LF and some in CR; save the file with one kind of line ending"
    else:
        problem = (
            "invalid quoting: text follows the closing quote of a cell; "
            "double a quote inside a cell"
        )
    return InvalidRow(file=lines.file, row=lines.row, problem=problem)


def _cell_count_problem(actual: int, expected: int) -> str:
    advice = "; a cell that contains the separator must be quoted" if actual > expected else ""
    return f"the header has {expected} cells, this row has {actual}{advice}"
