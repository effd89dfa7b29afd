"""Rows of a data source, validated one by one, and the limits on what is read."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lora_core.errors.data import (
    DataTooLarge,
    EmptyData,
    IncompletePair,
    MalformedRow,
    MissingColumn,
    MissingLabel,
    MissingText,
    NulByte,
    SameColumn,
    WrongSeparator,
)
from lora_core.specs.chat import PromptFormat

# Limits on an untrusted file, checked before memory is allocated.
MAX_ROWS = 1_000_000
MAX_COLUMNS = 512
MAX_CELL_CHARACTERS = 1_000_000  # the longest IMDB review has 13,704
MAX_LINE_CHARACTERS = 16_000_000
MAX_BYTES = 500_000_000  # of a file, and of the texts and labels read from it
MAX_LABELS = 1_000
MAX_LABEL_CHARACTERS = 256

SPLIT_COLUMN = "split"  # read if it exists and no other split column is named
MAX_ROWS_IN_ERROR = 10  # row numbers in an error message
NO_LABEL = ""
SEPARATORS = ",;\t|"  # cell separators that are detected

NumberedCells = Iterator[tuple[int, Sequence[object]]]  # the row number and the selected cells


@dataclass(frozen=True, slots=True)
class TextRow:
    """One text, or a pair. `number` is the row number that users see: 1 is the first data row."""

    number: int
    text: str
    label: str
    split: str | None = None
    pair: str | None = None  # the second text of a pair

    @property
    def characters(self) -> int:
        """The length of the text, or of both texts of a pair."""
        return len(self.text) + len(self.pair or "")


@dataclass(frozen=True)
class ColumnSelection:
    """The names of the columns to read. With `label` None, only texts are read.

    With `sheet` None, the first sheet that has any cells is read.
    """

    text: str = "text"
    label: str | None = "label"
    split: str | None = None
    pair: str | None = None  # the second text, if rows are pairs
    detect_split: bool = True  # if `split` is None, read `SPLIT_COLUMN` if it exists
    sheet: str | None = None  # of a workbook
    prompt_format: PromptFormat | None = None  # of examples in chat form; None: detect it

    def find_positions(self, file: str, available: Sequence[str]) -> list[int]:
        """Return the positions of text, of its pair and label unless they are None, and of split if
        there is one.

        Raises `MissingColumn`, `WrongSeparator`; `MalformedRow` if a selected column is duplicated;
        `SameColumn`, `DataTooLarge`.
        """
        if len(available) > MAX_COLUMNS:
            raise DataTooLarge(file=file, what="the number of columns", limit=f"{MAX_COLUMNS:,}")
        selected = [self.text, *filter(None, (self.pair, self.label))]
        if self.text == self.pair:
            raise SameColumn(column=self.text)
        if self.split is not None:
            selected.append(self.split)
        elif self.label is not None and self.detect_split and SPLIT_COLUMN in available:
            selected.append(SPLIT_COLUMN)
        for column in selected:
            if column not in available:
                if (separator := _detect_separator(available)) is not None:
                    raise WrongSeparator(file=file, column=available[0][:100], separator=separator)
                names = ", ".join(name[:100] for name in available)
                raise MissingColumn(file=file, column=column, available=names)
            if available.count(column) > 1:
                raise MalformedRow(file=file, row=0, problem=f"column {column!r} is duplicated")
        return [available.index(column) for column in selected]


class RowCollector:
    """Collects and validates the cells of a source, one row at a time.

    With `pairs`, each text is followed by the second text of its pair.
    """

    def __init__(self, file: str, *, pairs: bool = False) -> None:
        self.file = file
        self._pairs = pairs
        self._rows: list[TextRow] = []
        self._labels: set[str] = set()
        self._bytes = 0
        self._without_text: list[int] = []
        self._incomplete: list[int] = []  # pairs with one text empty
        self._without_label: list[int] = []

    def add(self, number: int, cells: Sequence[object]) -> None:
        """Add a row: text (or two), label unless only texts are read, and split if the source has
        one.

        Raises `MalformedRow`, `NulByte`, `DataTooLarge`.
        """
        if len(self._rows) >= MAX_ROWS:
            raise DataTooLarge(file=self.file, what="the number of rows", limit=f"{MAX_ROWS:,}")
        text, pair = self._text(number, cells[0]), None
        if self._pairs:
            pair = self._text(number, cells[1])
        if not text and not pair:
            self._without_text.append(number)
        elif not text or pair == "":
            self._incomplete.append(number)
        label, split = NO_LABEL, None
        others = cells[2:] if self._pairs else cells[1:]
        if others:
            label = self._label(number, others[0])
            if not label:
                self._without_label.append(number)
        if len(others) > 1:
            split = str("" if others[1] is None else others[1])[:MAX_LABEL_CHARACTERS]
        self._rows.append(TextRow(number, text, label, split, pair))

    def rows(self) -> list[TextRow]:
        """Return all rows. Raises `EmptyData`, `MissingText`, `IncompletePair`, `MissingLabel`."""
        if not self._rows:
            raise EmptyData(file=self.file)
        for numbers, error in (
            (self._without_text, MissingText),
            (self._incomplete, IncompletePair),
            (self._without_label, MissingLabel),
        ):
            if numbers:
                first = ", ".join(map(str, numbers[:MAX_ROWS_IN_ERROR]))
                raise error(file=self.file, count=len(numbers), rows=first)
        return self._rows

    def _text(self, number: int, text: object) -> str:
        """Return the text unchanged, or "" if it is missing or only white space."""
        if text is None:
            return ""
        if not isinstance(text, str):
            problem = f"the text is a {type(text).__name__}, not a string"
            raise MalformedRow(file=self.file, row=number, problem=problem)
        if len(text) > MAX_CELL_CHARACTERS:
            raise DataTooLarge(
                file=self.file,
                what=f"the text in row {number}",
                limit=f"{MAX_CELL_CHARACTERS:,} characters",
            )
        if "\0" in text:
            raise NulByte(file=self.file, row=number)
        self._bytes += self._size(number, text)
        if self._bytes > MAX_BYTES:
            raise DataTooLarge(
                file=self.file, what="the sum of texts", limit=f"{MAX_BYTES:,} bytes"
            )
        return text if text.strip() else ""

    def _size(self, number: int, text: str) -> int:
        try:
            return len(text.encode())
        except UnicodeEncodeError as error:  # JSON can escape a lone surrogate
            problem = "a lone surrogate, which is not a character"
            raise MalformedRow(file=self.file, row=number, problem=problem) from error

    def _label(self, number: int, label: object) -> str:
        """Return the label as text: a string without surrounding white space, an integer, "true" or
        "false"."""
        match label:
            case None:
                name = ""
            case bool():
                name = str(label).lower()
            case int() if abs(label) < 2**63:
                name = str(label)
            case str():
                self._size(number, label)
                name = unicodedata.normalize("NFC", label.strip())
            case _:
                type_name = type(label).__name__
                problem = f"the label is a {type_name}; it must be a string, an integer or a bool"
                raise MalformedRow(file=self.file, row=number, problem=problem)
        if "\0" in name:
            raise NulByte(file=self.file, row=number)
        if len(name) > MAX_LABEL_CHARACTERS:
            raise DataTooLarge(
                file=self.file,
                what=f"the label in row {number}",
                limit=f"{MAX_LABEL_CHARACTERS} characters",
            )
        self._labels.add(name)
        if len(self._labels) > MAX_LABELS:
            raise DataTooLarge(
                file=self.file, what="the number of different labels", limit=f"{MAX_LABELS:,}"
            )
        return name


def collect_rows(file: str, rows: NumberedCells, *, pairs: bool = False) -> list[TextRow]:
    """Return all rows of a source, validated. Raises what `RowCollector` raises."""
    collector = RowCollector(file, pairs=pairs)
    for number, cells in rows:
        collector.add(number, cells)
    return collector.rows()


def _detect_separator(columns: Sequence[str]) -> str | None:
    """Return the separator in a header that was read as a single cell; None if there is none."""
    if len(columns) > 1:
        return None
    return next((separator for separator in SEPARATORS if separator in columns[0]), None)


# -- Tables of strings: what CSV, TSV and Excel files have in common ------------------------------

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
    prompt_format: PromptFormat | None = None  # of examples in chat form


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

    def iter_rows(self, columns: ColumnSelection) -> NumberedCells:
        """Yield the selected columns. Raises what `ColumnSelection.find_positions` and the reader
        raise; `MalformedRow`."""
        positions = columns.find_positions(self.file, self.header)
        for number, row_cells in self.rows:
            selected = [row_cells[i] for i in positions]
            self.check_formulas(number, selected)
            yield number, selected

    def check_formulas(self, number: int, cells: list[str]) -> None:
        """Raise `MalformedRow` for the error value of a formula. Text files have no formulas."""
        if self.parse_info.sheet is None:
            return
        if formula_error := next((cell for cell in cells if cell in FORMULA_ERRORS), None):
            problem = f"a formula has the error {formula_error}; correct it or clear the cell"
            raise MalformedRow(file=self.file, row=number, problem=problem)


def _skip_blank_rows(rows: NumberedRows, info: ParseInfo) -> NumberedRows:
    """Yield the rows with any non-blank cell. Spreadsheets also save rows without content."""
    for number, cells in rows:
        if any(cell.strip() for cell in cells):
            yield number, cells
        else:
            info.blank_rows += 1
