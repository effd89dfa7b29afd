"""Rows as they stand in a source, checked one by one."""

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lora_core.data.limits import MAX_BYTES, MAX_CELL, MAX_COLUMNS, MAX_LABEL, MAX_LABELS, MAX_ROWS
from lora_core.errors.data import (
    BrokenRows,
    DataTooLarge,
    EmptyData,
    EmptyText,
    MissingColumn,
    MissingLabel,
    NulByte,
    WrongSeparator,
)

SPLIT_COLUMN = "split"  # used when it is there and no other is named
SHOWN = 10  # row numbers in an error
NO_LABEL = ""
SEPARATORS = ",;\t|"  # of cells, in files that are read or refused

Numbered = Iterator[tuple[int, Sequence[object]]]  # the wanted cells of each row, with its number


@dataclass(frozen=True, slots=True)
class Row:
    """One text. `number` is what a person sees: 1 is the first row of data."""

    number: int
    text: str
    label: str
    split: str | None = None


@dataclass(frozen=True)
class Columns:
    """The names of the columns to read. `label` None: the texts alone.

    `sheet` None: the first one that has any cells.
    """

    text: str = "text"
    label: str | None = "label"
    split: str | None = None
    look_for_split: bool = True  # with `split` None: `SPLIT_COLUMN` is read when there is one
    sheet: str | None = None  # of a workbook

    def find(self, file: str, available: Sequence[str]) -> list[int]:
        """Positions of text, of label unless there is none, and, if there is one, of split.

        Raises `MissingColumn`, `WrongSeparator`; `BrokenRows` if a wanted column is there twice;
        `DataTooLarge`.
        """
        if len(available) > MAX_COLUMNS:
            raise DataTooLarge(file=file, what="the number of columns", limit=f"{MAX_COLUMNS:,}")
        wanted = [self.text] if self.label is None else [self.text, self.label]
        if self.split is not None:
            wanted.append(self.split)
        elif self.label is not None and self.look_for_split and SPLIT_COLUMN in available:
            wanted.append(SPLIT_COLUMN)
        for column in wanted:
            if column not in available:
                if (found := _separator(available)) is not None:
                    raise WrongSeparator(file=file, column=available[0][:100], separator=found)
                names = ", ".join(name[:100] for name in available)
                raise MissingColumn(file=file, column=column, available=names)
            if available.count(column) > 1:
                raise BrokenRows(file=file, row=0, problem=f"the column {column!r} is there twice")
        return [available.index(column) for column in wanted]


class RowCollector:
    """Takes the cells of a source one row at a time and keeps those that are sound."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._rows: list[Row] = []
        self._labels: set[str] = set()
        self._bytes = 0
        self._without_text: list[int] = []
        self._without_label: list[int] = []

    def add(self, number: int, cells: Sequence[object]) -> None:
        """One row: text, label unless it is read without, and, if the source has one, split.

        Raises `BrokenRows`, `NulByte`, `DataTooLarge`.
        """
        if len(self._rows) >= MAX_ROWS:
            raise DataTooLarge(file=self.file, what="the number of rows", limit=f"{MAX_ROWS:,}")
        text = self._text(number, cells[0])
        if not text:
            self._without_text.append(number)
        label, split = NO_LABEL, None
        if len(cells) > 1:
            label = self._label(number, cells[1])
            if not label:
                self._without_label.append(number)
        if len(cells) > 2:
            split = str("" if cells[2] is None else cells[2])[:MAX_LABEL]
        self._rows.append(Row(number, text, label, split))

    def rows(self) -> list[Row]:
        """All rows. Raises `EmptyData`, `EmptyText`, `MissingLabel`."""
        if not self._rows:
            raise EmptyData(file=self.file)
        for numbers, error in (
            (self._without_text, EmptyText),
            (self._without_label, MissingLabel),
        ):
            if numbers:
                first = ", ".join(map(str, numbers[:SHOWN]))
                raise error(file=self.file, count=len(numbers), rows=first)
        return self._rows

    def _text(self, number: int, text: object) -> str:
        """The text as it is; "" if it is missing or nothing but white space."""
        if text is None:
            return ""
        if not isinstance(text, str):
            problem = f"the text is a {type(text).__name__}, not a string"
            raise BrokenRows(file=self.file, row=number, problem=problem)
        if len(text) > MAX_CELL:
            raise DataTooLarge(
                file=self.file, what=f"the text in row {number}", limit=f"{MAX_CELL:,} characters"
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
        except UnicodeEncodeError as error:  # JSON can escape half a character
            problem = "half a surrogate pair, which is no character"
            raise BrokenRows(file=self.file, row=number, problem=problem) from error

    def _label(self, number: int, label: object) -> str:
        """Its name: a string without white space around it, a whole number, "true" or "false"."""
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
                kind = type(label).__name__
                problem = f"the label is a {kind}; a string, a whole number or a bool is needed"
                raise BrokenRows(file=self.file, row=number, problem=problem)
        if "\0" in name:
            raise NulByte(file=self.file, row=number)
        if len(name) > MAX_LABEL:
            raise DataTooLarge(
                file=self.file, what=f"the label in row {number}", limit=f"{MAX_LABEL} characters"
            )
        self._labels.add(name)
        if len(self._labels) > MAX_LABELS:
            raise DataTooLarge(
                file=self.file, what="the number of different labels", limit=f"{MAX_LABELS:,}"
            )
        return name


def collect(file: str, rows: Numbered) -> list[Row]:
    """All rows of a source, checked. Raises what `RowCollector` raises."""
    collector = RowCollector(file)
    for number, cells in rows:
        collector.add(number, cells)
    return collector.rows()


def _separator(columns: Sequence[str]) -> str | None:
    """What separates the cells of a header that was read as one cell."""
    if len(columns) > 1:
        return None
    return next((each for each in SEPARATORS if each in columns[0]), None)
