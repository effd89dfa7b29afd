"""A table of strings: what CSV, TSV and Excel files have in common."""

from collections.abc import Iterator
from dataclasses import dataclass

from lora_core.data.rows import Columns, Numbered
from lora_core.errors.data import BrokenRows, EmptyData

ERRORS = ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A")  # of formulas


@dataclass
class Reading:
    """How a file was read, where that had to be found out."""

    encoding: str | None = None  # None: not a table in a text file
    separator: str | None = None
    sheet: str | None = None
    sheets: tuple[str, ...] = ()  # all that the workbook shows
    blank_rows: int = 0  # that were skipped so far; blank lines of a text file are not counted


Rows = Iterator[tuple[int, list[str]]]


@dataclass(frozen=True)
class Table:
    """A header and the rows below it, with their numbers; row 1 is the first below the header.

    Each row has as many cells as the header.
    """

    file: str
    reading: Reading
    header: list[str]
    rows: Rows

    @classmethod
    def of(cls, file: str, reading: Reading, rows: Rows) -> "Table":
        """`rows` begin with the header. Raises `EmptyData`, and what reading the header raises."""
        kept = _filled(rows, reading)
        _, header = next(kept, (0, None))
        if header is None:
            raise EmptyData(file=file)
        return cls(file, reading, header, kept)

    def cells(self, columns: Columns) -> Numbered:
        """These columns. Raises what `Columns.find` and the reader raise; `BrokenRows`."""
        positions = columns.find(self.file, self.header)
        for number, found in self.rows:
            wanted = [found[i] for i in positions]
            self.check(number, wanted)
            yield number, wanted

    def check(self, number: int, cells: list[str]) -> None:
        """Raises `BrokenRows` for the error of a formula, of which there are none in text files."""
        if self.reading.sheet is None:
            return
        if wrong := next((cell for cell in cells if cell in ERRORS), None):
            problem = f"a formula gives the error {wrong}; correct it, or clear the cell"
            raise BrokenRows(file=self.file, row=number, problem=problem)


def _filled(rows: Rows, reading: Reading) -> Rows:
    """Those with anything in them. Spreadsheets save rows that only seem to be there."""
    for number, cells in rows:
        if any(cell.strip() for cell in cells):
            yield number, cells
        else:
            reading.blank_rows += 1
