"""Tables of strings: what CSV, TSV and Excel files have in common."""

from collections.abc import Iterator
from dataclasses import dataclass

from lora_core.data.rows import ColumnSelection, NumberedCells
from lora_core.errors.data import EmptyData, InvalidRow

# values of formulas that failed
FORMULA_ERRORS = ("#NULL!", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#N/A")


@dataclass
class ParseInfo:
    """How a file was parsed, where that had to be detected."""

    encoding: str | None = None  # None: not a text table
    separator: str | None = None
    sheet: str | None = None
    sheets: tuple[str, ...] = ()  # all visible sheets of the workbook
    blank_rows: int = 0  # skipped so far; blank lines of a text file are not counted


NumberedRows = Iterator[tuple[int, list[str]]]


@dataclass(frozen=True)
class StringTable:
    """A header and the numbered rows below it; row 1 is the first below the header.

    Each row has as many cells as the header.
    """

    file: str
    parse_info: ParseInfo
    header: list[str]
    rows: NumberedRows

    @classmethod
    def from_rows(cls, file: str, info: ParseInfo, rows: NumberedRows) -> "StringTable":
        """Create a table; `rows` begin with the header. Raises `EmptyData`, and what reading it
        raises."""
        non_blank = _skip_blank_rows(rows, info)
        _, header = next(non_blank, (0, None))
        if header is None:
            raise EmptyData(file=file)
        return cls(file, info, header, non_blank)

    def iter_cells(self, columns: ColumnSelection) -> NumberedCells:
        """Yield the selected columns. Raises what `ColumnSelection.find_positions` and the reader
        raise; `InvalidRow`."""
        positions = columns.find_positions(self.file, self.header)
        for number, row_cells in self.rows:
            selected = [row_cells[i] for i in positions]
            self.check_formulas(number, selected)
            yield number, selected

    def check_formulas(self, number: int, cells: list[str]) -> None:
        """Raise `InvalidRow` for the error value of a formula. Text files have no formulas."""
        if self.parse_info.sheet is None:
            return
        if formula_error := next((cell for cell in cells if cell in FORMULA_ERRORS), None):
            problem = f"a formula has the error {formula_error}; correct it or clear the cell"
            raise InvalidRow(file=self.file, row=number, problem=problem)


def _skip_blank_rows(rows: NumberedRows, info: ParseInfo) -> NumberedRows:
    """Yield the rows with any non-blank cell. Spreadsheets also save rows without content."""
    for number, cells in rows:
        if any(cell.strip() for cell in cells):
            yield number, cells
        else:
            info.blank_rows += 1
