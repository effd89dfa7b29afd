"""Rows of a data source, validated one by one, and the limits on what is read."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from lora_core.data.label_readers import (
    MAX_LABEL_CHARACTERS,
    NO_LABEL,
    SINGLE_LABEL,
    LabelFormat,
    build_label_reader,
    count_utf8_bytes,
    normalize_label_name,
    without_invisible_characters,
)
from lora_core.errors.data import (
    DataTooLarge,
    EmptyData,
    IncompletePair,
    MalformedRow,
    MissingColumn,
    MissingLabel,
    MissingText,
    NulByte,
    SameTextPairColumn,
    WrongSeparator,
    format_row_numbers,
)
from lora_core.specs.chat import PromptFormat
from lora_core.specs.data import DataSpec
from lora_core.specs.task import TaskSpec

# Limits on an untrusted file, checked before memory is allocated.
MAX_ROWS = 1_000_000
MAX_COLUMNS = 512
MAX_CELL_CHARACTERS = 1_000_000  # the longest IMDB review has 13,704
MAX_LINE_CHARACTERS = 16_000_000
MAX_BYTES = 500_000_000  # of a file, and of the texts and labels read from it

SPLIT_COLUMN = "split"  # read if it exists and no other split column is named
SEPARATORS = ",;\t|"  # cell separators that are detected

NumberedCells = Iterator[tuple[int, Sequence[object]]]  # the row number and the selected cells


@dataclass(frozen=True, slots=True)
class TextRow:
    """One text, or a pair. `number` is the row number that users see: 1 is the first data row.

    `label` is in the form of `lora_core.data.label_readers`.
    """

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

    Names are looked up by `find_column`. With `sheet` None, the first sheet that has any cells is
    read. `label_format.columns_instead_of_label` are read in place of `label`.
    """

    text: str = "text"
    label: str | None = "label"
    split: str | None = None
    pair: str | None = None  # the second text, if rows are pairs
    detect_split: bool = True  # if `split` is None, read `SPLIT_COLUMN` if it exists
    sheet: str | None = None  # of a workbook
    prompt_format: PromptFormat | None = None  # of examples in chat form; None: detect it
    label_format: LabelFormat = SINGLE_LABEL

    @classmethod
    def from_spec(cls, data: DataSpec, task: TaskSpec) -> "ColumnSelection":
        return cls(
            data.text_column,
            data.label_column,
            data.split_column,
            data.text_pair_column,
            prompt_format=data.prompt_format,
            label_format=LabelFormat.from_spec(data, task),
        )

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The column of the text, or those of both texts of a pair."""
        return (self.text,) if self.pair is None else (self.text, self.pair)

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns that labels are read from."""
        if self.label is None:
            return ()
        return self.label_format.columns_instead_of_label or (self.label,)

    @property
    def detects_split(self) -> bool:
        """Whether `SPLIT_COLUMN` is read if it exists."""
        return self.split is None and self.detect_split and self.label is not None

    @property
    def label_column_formats(self) -> tuple[LabelFormat, ...]:
        """The format of each of `label_columns`."""
        if not self.label_format.targets:
            return (self.label_format,) * len(self.label_columns)
        return tuple(
            target.label_format for target in self.label_format.targets for _ in target.columns
        )

    @property
    def must_exist_in_samples(self) -> bool:
        """Whether a sample must have these columns; else its text and label have any names."""
        return self.pair is not None or bool(self.label_format.columns_instead_of_label)

    def find_positions(self, file: str, available: Sequence[str]) -> list[int]:
        """Return the positions of text, of its pair if there is one, of the label columns, and of
        split if there is one.

        Raises `MissingColumn`, `WrongSeparator`; `MalformedRow` if a selected column is duplicated;
        `SameTextPairColumn`, `DataTooLarge`.
        """
        check_column_limit(file, available)
        selected = [*self.text_columns, *self.label_columns]
        if self.text == self.pair:
            raise SameTextPairColumn(column=self.text)
        if self.split is not None:
            selected.append(self.split)
        elif self.detects_split and SPLIT_COLUMN in available:
            selected.append(SPLIT_COLUMN)
        found = []
        for column in selected:
            name = find_column(column, available)
            if name is None:
                if (separator := _detect_separator(available)) is not None:
                    raise WrongSeparator(file=file, column=available[0][:100], separator=separator)
                names = ", ".join(each[:100] for each in available)
                raise MissingColumn(file=file, column=column, available=names)
            if available.count(name) > 1:
                raise MalformedRow(file=file, row=0, problem=f"column {name!r} is duplicated")
            found.append(name)
        if self.pair is not None and found[0] == found[1]:
            raise SameTextPairColumn(column=found[0])
        return [available.index(name) for name in found]


def check_column_limit(file: str, names: Collection[str]) -> None:
    """Raise `DataTooLarge` if there are more than `MAX_COLUMNS`."""
    if len(names) > MAX_COLUMNS:
        limit = f"{MAX_COLUMNS:,}; delete columns that are not needed"
        raise DataTooLarge(file=file, what="the number of columns", limit=limit)


def normalize_column_name(column: str) -> str:
    """Return what is seen of the name of a column: NFC, without invisible characters and
    surrounding white space."""
    return normalize_label_name(without_invisible_characters(column))


def find_column(wanted: str, available: Collection[str]) -> str | None:
    """Return the column of this name, or else the only one whose name looks the same, if any."""
    if wanted in available:
        return wanted
    seen = normalize_column_name(wanted)
    similar = [name for name in available if normalize_column_name(name) == seen]
    return similar[0] if len(similar) == 1 else None


class RowCollector:
    """Collects and validates the cells of a source, one row at a time.

    With `columns.pair`, each text is followed by the second text of its pair.
    """

    def __init__(self, file: str, columns: ColumnSelection) -> None:
        self.file = file
        self._columns = columns
        self._rows: list[TextRow] = []
        self._labels = build_label_reader(file, columns.label_format)
        self._bytes = 0
        self._without_text: list[int] = []
        self._incomplete: list[int] = []  # pairs with one text empty
        self._without_label: list[int] = []

    def add(self, number: int, cells: Sequence[object]) -> None:
        """Add a row: text (or two), label unless only texts are read, and split if the source has
        one.

        Raises `MalformedRow`, `NulByte`, `DataTooLarge`, and what the reader of labels raises.
        """
        if len(self._rows) >= MAX_ROWS:
            raise DataTooLarge(file=self.file, what="the number of rows", limit=f"{MAX_ROWS:,}")
        text, pair = self._text(number, cells[0]), None
        if self._columns.pair is not None:
            pair = self._text(number, cells[1])
        if not text and not pair:
            self._without_text.append(number)
        elif not text or pair == "":
            self._incomplete.append(number)
        label, split = NO_LABEL, None
        texts, labels = len(self._columns.text_columns), len(self._columns.label_columns)
        label_cells, others = cells[texts : texts + labels], cells[texts + labels :]
        if label_cells:
            label = self._labels.read(number, label_cells)
            if not label:
                self._without_label.append(number)
        if others:
            split = str("" if others[0] is None else others[0])[:MAX_LABEL_CHARACTERS]
        self._rows.append(TextRow(number, text, label, split, pair))

    def rows(self) -> list[TextRow]:
        """Return all rows.

        Raises `EmptyData`, `MissingText`, `IncompletePair`, `MissingLabel`, `LabelNotNumber`,
        `DecimalComma`.
        """
        if not self._rows:
            raise EmptyData(file=self.file)
        for numbers, error in (
            (self._without_text, MissingText),
            (self._incomplete, IncompletePair),
            (self._without_label, MissingLabel),
        ):
            if numbers:
                raise error(file=self.file, count=len(numbers), rows=format_row_numbers(numbers))
        self._labels.raise_for_invalid_rows()
        return self._rows

    def rows_with_thousands(self) -> list[int]:
        """Return the rows with numbers whose point seems to separate thousands."""
        return self._labels.rows_with_thousands()

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
        self._bytes += count_utf8_bytes(self.file, number, text)
        if self._bytes > MAX_BYTES:
            raise DataTooLarge(
                file=self.file, what="the sum of texts", limit=f"{MAX_BYTES:,} bytes"
            )
        return text if text.strip() else ""


def collect_rows(
    file: str, rows: NumberedCells, columns: ColumnSelection, info: "ParseInfo | None" = None
) -> list[TextRow]:
    """Return all rows of a source, validated, and add what is doubtful to `info`.

    Raises what `RowCollector` raises.
    """
    collector = RowCollector(file, columns)
    for number, cells in rows:
        collector.add(number, cells)
    if info is not None:
        info.rows_with_thousands = collector.rows_with_thousands()
    return collector.rows()


def _detect_separator(columns: Sequence[str]) -> str | None:
    """Return the separator in a header that was read as a single cell; None if there is none."""
    if len(columns) != 1:
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
    rows_with_thousands: list[int] = field(default_factory=list)  # whose point is doubtful
    unread_split: str | None = None  # a column whose name only resembles `SPLIT_COLUMN`
    prompt_format: PromptFormat | None = None  # of examples in chat form
    # of an export of Label Studio, so far
    unannotated_tasks: int = 0  # skipped
    disputed_rows: list[int] = field(default_factory=list)  # whose annotations differ


NumberedRows = Iterator[tuple[int, list[str]]]


@dataclass(frozen=True)
class TableWithHeader:
    """A header and the numbered rows below it; row 1 is the first below the header.

    Each row has as many cells as the header.
    """

    file: str
    parse_info: ParseInfo
    header: list[str]
    rows: NumberedRows

    @classmethod
    def from_rows(cls, file: str, info: ParseInfo, rows: NumberedRows) -> "TableWithHeader":
        """Create a table; `rows` begin with the header. Raises `EmptyData`, and what reading it
        raises."""
        non_blank = _skip_blank_rows(rows, info)
        _, header = next(non_blank, (0, None))
        if header is None:
            raise EmptyData(file=file)
        return cls(file, info, header, non_blank)

    def iter_row_cells(self, columns: ColumnSelection) -> NumberedCells:
        """Yield the selected columns. Raises what `ColumnSelection.find_positions` and the reader
        raise; `MalformedRow`."""
        positions = columns.find_positions(self.file, self.header)
        if columns.detects_split and SPLIT_COLUMN not in self.header:
            others = (name for i, name in enumerate(self.header) if i not in positions)
            similar = (
                name for name in others if normalize_column_name(name).casefold() == SPLIT_COLUMN
            )
            self.parse_info.unread_split = next(similar, None)
        for number, row_cells in self.rows:
            selected = [row_cells[i] for i in positions]
            self.check_formula_errors(number, selected)
            yield number, selected

    def check_formula_errors(self, number: int, cells: list[str]) -> None:
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
