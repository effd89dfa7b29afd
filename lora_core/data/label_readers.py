"""Read the labels of rows: a name, a set of names, or a number.

A row keeps its label as a string, whatever its cells were: a name, a JSON list of names in their
order, a number as `repr` writes it, or a JSON object of these by target. So rows with equal labels
have equal strings.
"""

import json
import math
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from lora_core.errors.data import (
    DataTooLarge,
    DecimalComma,
    EmptyLabelInSet,
    LabelNotBinary,
    LabelNotNumber,
    MalformedLabelSet,
    MalformedRow,
    MissingTargetValue,
    NulByte,
    format_row_numbers,
)
from lora_core.specs.data import DataSpec
from lora_core.specs.encoded_labels import (
    decode_label_set,
    decode_targets,
    encode_label_set,
    encode_targets,
    qualified_output_name,
)
from lora_core.specs.task import SeveralTargetsSpec, TaskSpec, TaskType

MAX_LABELS = 1_000
MAX_LABEL_CHARACTERS = 256
MAX_NUMBER = 1e30  # absolute value: its square is far from the limits of fp32 sums
NO_LABEL = ""
_CONTROL = re.compile("[\x01-\x1f\x7f-\x9f]+")


@dataclass(frozen=True)
class LabelFormat:
    """What the label column contains.

    `separator` and `columns` are those of a multi-label task, as in `DataSpec`.
    """

    task: TaskType = "single_label"
    separator: str | None = None
    columns: tuple[str, ...] | None = None
    ordered: bool = False  # the labels of a single-label task are ranks
    targets: tuple["TargetColumns", ...] = ()  # of several targets, by name

    @classmethod
    def from_spec(cls, data: DataSpec, task: TaskSpec) -> "LabelFormat":
        if isinstance(task, SeveralTargetsSpec):
            return cls(task.type, targets=list_target_columns(task))
        ordered = getattr(task, "ordered", False)
        return cls(task.type, data.label_separator, data.label_columns, ordered)

    @property
    def columns_instead_of_label(self) -> tuple[str, ...]:
        """The columns that are read in place of the label column; empty: that one."""
        return self.columns or tuple(name for each in self.targets for name in each.columns)

    def format_of_target(self, name: str) -> "LabelFormat":
        """Return the format of one of several targets."""
        return next(each.label_format for each in self.targets if each.name == name)


class TargetColumns(NamedTuple):
    """One of several targets: its columns, and what they contain."""

    name: str
    columns: tuple[str, ...]
    label_format: LabelFormat


def list_target_columns(task: SeveralTargetsSpec) -> tuple[TargetColumns, ...]:
    """Return the columns of each target."""
    formats = []
    for name, target in task.targets.items():
        label_columns = getattr(target, "label_columns", None)
        label_format = LabelFormat(
            target.type,
            getattr(target, "label_separator", None),
            label_columns,
            getattr(target, "ordered", False),
        )
        columns = label_columns or (target.column or name,)
        formats.append(TargetColumns(name, columns, label_format))
    return tuple(formats)


def build_targets_spec(targets: Sequence[TargetColumns]) -> dict[str, dict[str, Any]]:
    """Return the targets as a spec describes them, without what does not concern their columns."""
    described = {}
    for name, columns, label_format in targets:
        fields = {
            "type": label_format.task,
            "column": None if label_format.columns else columns[0],
            "label_columns": label_format.columns,
            "label_separator": label_format.separator,
            "ordered": label_format.ordered or None,
        }
        described[name] = {key: value for key, value in fields.items() if value is not None}
    return described


SINGLE_LABEL = LabelFormat()


def decode_label_names(label: str, task: TaskType) -> tuple[str, ...]:
    """Return the names in the label of a row. A number has none."""
    match task:
        case "single_label":
            return (label,)
        case "multi_label":
            return decode_label_set(label)
        case "regression":
            return ()
        case "several_targets":
            return tuple(
                qualified_output_name(target, name)
                for target, value in decode_targets(label).items()
                if not isinstance(value, float)
                for name in ((value,) if isinstance(value, str) else value)
            )


class LabelReader(ABC):
    """Reads the label of one row after another."""

    def __init__(self, file: str) -> None:
        self.file = file

    @abstractmethod
    def read(self, row: int, cells: Sequence[object]) -> str:
        """Return the label of a row, or `NO_LABEL` if a cell is missing.

        Raises `MalformedRow`, `NulByte`, `DataTooLarge`.
        """

    def raise_for_invalid_rows(self) -> None:  # noqa: B027 - most readers have nothing to check
        """Raise the error of the column as a whole, once all rows have been read."""

    def rows_with_thousands(self) -> list[int]:
        """Return the rows with numbers whose point seems to separate thousands."""
        return []


def build_label_reader(file: str, label_format: LabelFormat) -> LabelReader:
    """Return the reader of a source."""
    match label_format.task:
        case "single_label":
            return SingleLabelReader(file)
        case "multi_label" if label_format.columns is not None:
            return BinaryColumnsReader(file, label_format.columns)
        case "multi_label":
            return LabelSetReader(file, label_format.separator)
        case "regression":
            return NumberReader(file)
        case "several_targets":
            return SeveralTargetsReader(file, label_format.targets)


def normalize_label_name(name: str) -> str:
    """Return the name of a label: NFC, without surrounding white space, in one line.

    Control characters, such as the line feed of a spreadsheet cell, are a space. NUL is kept, since
    readers refuse it.
    """
    return unicodedata.normalize("NFC", _CONTROL.sub(" ", name).strip())


def without_invisible_characters(text: str) -> str:
    """Return text without characters such as U+200B and U+FEFF (category Cf), which copying and
    pasting leaves behind."""
    return "".join(each for each in text if unicodedata.category(each) != "Cf")


class SingleLabelReader(LabelReader):
    """Reads names, and limits their length and number."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self._names: set[str] = set()

    def read(self, row: int, cells: Sequence[object]) -> str:
        return self.parse_name(row, cells[0])

    def parse_name(self, row: int, value: object) -> str:
        """Return a name as text: a string without surrounding white space, an integer, "true" or
        "false"."""
        match value:
            case None:
                name = ""
            case bool():
                name = str(value).lower()
            case int() if abs(value) < 2**63:
                name = str(value)
            case str():
                count_utf8_bytes(self.file, row, value)
                name = normalize_label_name(value)
            case _:
                type_name = type(value).__name__
                problem = (
                    f"the label is a {type_name}; it must be a string, an integer or a bool, "
                    "except for the tasks multi_label and regression (`--task`)"
                )
                raise MalformedRow(file=self.file, row=row, problem=problem)
        if "\0" in name:
            raise NulByte(file=self.file, row=row)
        if len(name) > MAX_LABEL_CHARACTERS:
            raise DataTooLarge(
                file=self.file,
                what=f"the label in row {row}",
                limit=f"{MAX_LABEL_CHARACTERS} characters",
            )
        self._names.add(name)
        if len(self._names) > MAX_LABELS:
            raise DataTooLarge(
                file=self.file,
                what="the number of different labels (numbers are for the task regression)",
                limit=f"{MAX_LABELS:,}",
            )
        return name

    def parse_label_set(self, row: int, values: Iterable[object]) -> str:
        """Return the label of a row with these names. Raises `EmptyLabelInSet`."""
        names = [self.parse_name(row, value) for value in values]
        if "" in names:
            raise EmptyLabelInSet(file=self.file, row=row)
        return encode_label_set(names)


class LabelSetReader(SingleLabelReader):
    """Reads the labels of a multi-label task from one cell: a list, or text."""

    def __init__(self, file: str, separator: str | None) -> None:
        super().__init__(file)
        self._separator = separator

    def read(self, row: int, cells: Sequence[object]) -> str:
        """Raises `MalformedLabelSet`, `EmptyLabelInSet`, and as `SingleLabelReader.read` does."""
        (cell,) = cells
        match cell:
            case None:
                return NO_LABEL
            case list():
                return self._set(row, cell)
            case str() if self._separator is not None:
                parts = cell.split(self._separator) if cell.strip() else []
                if len(parts) > 1 and not parts[-1].strip():
                    parts.pop()  # programs for forms end every set with a separator
                return self.parse_label_set(row, parts)
            case str() if not cell.strip():
                return NO_LABEL
            case str():
                return self._set(row, self._parse(row, cell))
            case _:
                raise self._error(row, f"the label is a {type(cell).__name__}")

    def _parse(self, row: int, cell: str) -> list[object]:
        try:
            values = json.loads(cell)
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, list):
            shown = cell if len(cell) <= 40 else f"{cell[:39]}…"
            raise self._error(row, f"{shown!r} is no JSON list")
        return values

    def _set(self, row: int, values: list[object]) -> str:
        for value in values:
            if not isinstance(value, str | int | None):
                raise self._error(row, f"a {type(value).__name__} in the list")
        return self.parse_label_set(row, values)

    def _error(self, row: int, problem: str) -> MalformedLabelSet:
        return MalformedLabelSet(file=self.file, row=row, problem=problem)


_BINARY = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


class BinaryColumnsReader(SingleLabelReader):
    """Reads the labels of a multi-label task from one column for each label."""

    def __init__(self, file: str, columns: Sequence[str]) -> None:
        super().__init__(file)
        self._columns = columns

    def read(self, row: int, cells: Sequence[object]) -> str:
        """Raises `LabelNotBinary`, `EmptyLabelInSet` and what `SingleLabelReader.read` raises."""
        names = []
        for column, cell in zip(self._columns, cells, strict=True):
            text = "" if cell is None else str(cell).strip().lower()
            if not text:
                return NO_LABEL
            if text not in _BINARY:
                raise LabelNotBinary(file=self.file, row=row, column=column, value=str(cell)[:40])
            if _BINARY[text]:
                names.append(column)
        return self.parse_label_set(row, names)


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WITH_COMMA = re.compile(r"[+-]?[\d.]*,\d+([.,]\d+)*", re.ASCII)


_PERCENTAGE = re.compile(r"[+-]?[\d.,]+\s*%", re.ASCII)
_GROUPED = re.compile(r"[+-]?[1-9]\d{0,2}\.\d{3}", re.ASCII)
_MIN_WHOLE = 100  # of a whole number, from which numbers seem to be large enough for thousands


class NumberReader(LabelReader):
    """Reads numbers, also from text with a decimal point."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self._rows = 0
        self._invalid: list[int] = []
        self._with_comma: list[int] = []
        self._first_invalid = ""
        self._grouped: list[int] = []  # rows with numbers such as 1.234
        self._other_points = self._large_whole = False

    def read(self, row: int, cells: Sequence[object]) -> str:
        """Text that is no number is reported by `raise_for_invalid_rows`."""
        (cell,) = cells
        text = "" if cell is None else str(cell).strip()
        if not text:
            return NO_LABEL
        self._rows += 1
        is_number = isinstance(cell, int | float | Decimal) and not isinstance(cell, bool)
        if is_number or _NUMBER.fullmatch(text):
            number = _to_float(text)
            if math.isfinite(number) and abs(number) <= MAX_NUMBER:
                if isinstance(cell, str):
                    self._look_for_thousands(row, text, number)
                return repr(number + 0.0)  # -0.0 becomes 0.0
        self._first_invalid = self._first_invalid or text[:40]
        (self._with_comma if _WITH_COMMA.fullmatch(text) else self._invalid).append(row)
        return text[:MAX_LABEL_CHARACTERS]

    def _look_for_thousands(self, row: int, text: str, number: float) -> None:
        if _GROUPED.fullmatch(text):
            self._grouped.append(row)
        elif "." in text:
            self._other_points = True
        elif abs(number) >= _MIN_WHOLE:
            self._large_whole = True

    def rows_with_thousands(self) -> list[int]:
        return self._grouped if self._large_whole and not self._other_points else []

    def raise_for_invalid_rows(self) -> None:
        """Raise `LabelNotNumber` or `DecimalComma`."""
        if self._invalid:
            advice = {}
            if _PERCENTAGE.fullmatch(self._first_invalid):
                advice["advice"] = "Write percentages without the sign: for 85%, write 0.85 or 85"
            raise LabelNotNumber(
                file=self.file,
                count=f"{len(self._invalid) + len(self._with_comma):,}",
                of=f"{self._rows:,}",
                rows=format_row_numbers(self._invalid),
                value=self._first_invalid,
                **advice,
            )
        if self._with_comma:
            raise DecimalComma(
                file=self.file,
                count=f"{len(self._with_comma):,}",
                rows=format_row_numbers(self._with_comma),
                value=self._first_invalid,
            )


class SeveralTargetsReader(LabelReader):
    """Reads several targets, each from columns of its own."""

    def __init__(self, file: str, targets: Sequence[TargetColumns]) -> None:
        super().__init__(file)
        self._targets = targets
        self._readers = [
            build_label_reader(describe_column_location(file, target.columns), target.label_format)
            for target in targets
        ]
        self._missing: dict[str, list[int]] = {target.name: [] for target in targets}

    def read(self, row: int, cells: Sequence[object]) -> str:
        """What is missing or no number is reported by `raise_for_invalid_rows`."""
        labels: dict[str, str | float | tuple[str, ...]] = {}
        start = 0
        for target, reader in zip(self._targets, self._readers, strict=True):
            end = start + len(target.columns)
            label = reader.read(row, cells[start:end])
            start = end
            if label == NO_LABEL:
                self._missing[target.name].append(row)
            elif target.label_format.task == "multi_label":
                labels[target.name] = decode_label_set(label)
            elif target.label_format.task == "regression":
                labels[target.name] = _to_float(label)
            else:
                labels[target.name] = label
        return encode_targets(labels)

    def raise_for_invalid_rows(self) -> None:
        """Raise `MissingTargetValue`, and what the readers of the targets raise."""
        for target, reader in zip(self._targets, self._readers, strict=True):
            if rows := self._missing[target.name]:
                raise MissingTargetValue(
                    file=self.file,
                    target=target.name,
                    columns=", ".join(target.columns),
                    count=f"{len(rows):,}",
                    rows=format_row_numbers(rows),
                )
            reader.raise_for_invalid_rows()

    def rows_with_thousands(self) -> list[int]:
        return sorted({row for reader in self._readers for row in reader.rows_with_thousands()})


def describe_column_location(file: str, columns: Sequence[str]) -> str:
    """Return the name of a file for errors that are about one of its targets."""
    more = f" and {len(columns) - 1} more" if len(columns) > 1 else ""
    return f"{file}, column {columns[0]!r}{more}"


def _to_float(text: str) -> float:
    try:
        return float(text)
    except (ValueError, OverflowError):
        return math.nan


def count_utf8_bytes(file: str, row: int, text: str) -> int:
    """Return the number of bytes of a text in UTF-8. Raises `MalformedRow`."""
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:  # JSON can escape a lone surrogate
        problem = "a lone surrogate, which is not a character"
        raise MalformedRow(file=file, row=row, problem=problem) from error
