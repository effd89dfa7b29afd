"""CSV and TSV, strictly, as spreadsheets of all countries write them.

Read with the standard library and not with `datasets`, whose errors do not say in which row a quote
is broken, and which reads what it can of a file that is damaged.
"""

import csv
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from lora_core.data import encoding
from lora_core.data.limits import MAX_CELL
from lora_core.data.rows import SEPARATORS
from lora_core.data.tabular import Reading, Rows, Table
from lora_core.data.text_lines import Lines, line_end
from lora_core.errors import LoraCoreError
from lora_core.errors.data import BrokenRows, DataTooLarge

LOOKED_AT = 20  # rows that tell the separator
_NAMED = re.compile(r'"?sep=([^"\r\n])"?\r?\n?')  # a first line that Excel understands


def open_table(path: Path, usual: str) -> Table:
    """A file with a header. Cells may be quoted with `"`, doubled inside a cell.

    They are separated by what a first line `sep=;` names, else by what the header and the rows
    below it agree on; `usual` where that says nothing. Rows are counted as a spreadsheet counts
    them, blank lines included, from 1 below the header (0).

    Raises, here or while rows are read, `BrokenRows`, `WrongEncoding`, `NulByte`, `EmptyData`,
    `DataTooLarge`.
    """
    # One for the whole process, in which other threads may read as well: so it is never put back.
    csv.field_size_limit(MAX_CELL)
    found = encoding.detect(path)
    end = line_end(path, found)
    named = _NAMED.fullmatch(next(iter(Lines(path, found, end=end)), ""))
    skipped = 1 if named else 0
    separator = named[1] if named else _separator(Lines(path, found, end=end), usual)
    reading = Reading(encoding=found.name, separator=separator)
    rows = _rows(Lines(path, found, end=end), separator, skipped)
    return Table.of(path.name, reading, rows)


def _rows(lines: Lines, separator: str, skipped: int) -> Rows:
    """The header as row 0, then the other rows, all with as many cells."""
    records = _records(lines, separator, skipped)
    header = next((cells for cells in records if any(cell.strip() for cell in cells)), None)
    if header is None:
        return
    yield 0, header
    lines.row = 1
    for cells in records:
        if cells:  # [] is a blank line
            if len(cells) != len(header) and any(cells):
                raise BrokenRows(
                    file=lines.file, row=lines.row, problem=_count(len(cells), len(header))
                )
            yield lines.row, cells
        lines.row += 1


def _records(lines: Lines, separator: str, skipped: int = 0) -> Iterator[list[str]]:
    try:
        yield from csv.reader(islice(lines, skipped, None), delimiter=separator, strict=True)
    except csv.Error as error:
        raise _plain(lines, str(error)) from error


def _separator(lines: Lines, usual: str) -> str:
    """What divides the header, and most of the rows below it into as many cells."""
    shares = {each: _share(lines, each) for each in dict.fromkeys((usual, *SEPARATORS))}
    best = max(shares, key=lambda each: shares[each])  # the first of those that are as good
    return best if shares[best] >= 0.5 else usual


def _share(lines: Lines, separator: str) -> float:
    """Of the first rows: those that have as many cells as the header; 0 if that has one cell.

    A file that is damaged here is refused when it is read.
    """
    counts: list[int] = []
    try:
        for cells in islice(_records(lines, separator), LOOKED_AT):
            counts += [len(cells)] if any(cells) else []
    except LoraCoreError:
        pass
    if not counts or counts[0] == 1:
        return 0
    return counts[1:].count(counts[0]) / len(counts[1:]) if counts[1:] else 1


def _plain(lines: Lines, message: str) -> LoraCoreError:
    """What the parser means."""
    if "field limit" in message:
        what = f"a cell in row {lines.row} (is a quote left open there?)"
        return DataTooLarge(file=lines.file, what=what, limit=f"{MAX_CELL:,} characters")
    if "unexpected end" in message:
        problem = "a quote is opened and never closed"
    elif "new-line" in message:
        problem = "some lines end in LF and some in CR; save with one kind of line end"
    else:
        problem = (
            "broken quoting: a quoted cell goes on after its closing quote; "
            "write a quote inside a cell twice"
        )
    return BrokenRows(file=lines.file, row=lines.row, problem=problem)


def _count(found: int, wanted: int) -> str:
    advice = "; a cell that holds the separator needs quotes around it" if found > wanted else ""
    return f"the header has {wanted} cells, this row {found}{advice}"
