"""Errors of reading, checking and splitting texts and labels."""

from typing import Any

from lora_core.errors import LoraCoreError


class DataError(LoraCoreError):
    """The texts and labels cannot be used."""


class DataNotFound(DataError):
    """Data not found."""

    code = "data_not_found"
    message = "No data {source!r}: {reason}."


class UnsupportedFormat(DataError):
    """Unsupported file format."""

    code = "unsupported_format"
    message = (
        "{file} is not a supported file: {reason}. Supported: .csv, .tsv, .xlsx, .jsonl, .parquet."
    )


class EmptyData(DataError):
    """The file has no rows."""

    code = "empty_data"
    message = "{file} has no rows."


class InvalidRow(DataError):
    """A row cannot be parsed."""

    code = "broken_rows"
    message = "{file}, row {row}: {problem}."


class WrongEncoding(DataError):
    """The text encoding of the file cannot be determined."""

    code = "wrong_encoding"
    message = (
        "{file}, row {row}: not valid UTF-8, and no other encoding fits. Save the file as "
        "UTF-8 (in Excel: CSV UTF-8) or as .xlsx."
    )


class NulByte(DataError):
    """The file contains a NUL byte."""

    code = "nul_byte"
    message = "{file}, row {row}: contains a NUL byte, not allowed in text files. Remove it."


class MissingColumn(DataError):
    """A required column is missing."""

    code = "missing_column"
    message = "{file} has no column {column!r}. Columns: {available}. {advice}."

    def __init__(
        self,
        *,
        advice: str = "Name the right one with `text_column`, `label_column` or `split_column` "
        "(`--text-column` and so on)",
        **detail: Any,
    ) -> None:
        super().__init__(advice=advice, **detail)


class MissingSheet(DataError):
    """The workbook does not have this sheet."""

    code = "missing_sheet"
    message = "{file} has no sheet {sheet!r}. Sheets: {available}."


class WrongSeparator(DataError):
    """All cells of a row are in one column."""

    code = "wrong_separator"
    message = (
        "{file} has one column, {column!r}: its cells seem to be separated by {separator!r}. Save "
        "it as .csv, or split the column in the spreadsheet."
    )


class ReservedColumn(DataError):
    """A column has a name that is reserved for predictions."""

    code = "column_taken"
    message = "{file} has a column {column!r}, a name that is reserved for predictions. Rename it."


class MissingText(DataError):
    """Some rows have no text."""

    code = "empty_text"
    message = "{file}: rows without text: {count} (first: {rows}). Fill in or remove them."


class MissingLabel(DataError):
    """Some rows have no label."""

    code = "missing_label"
    message = "{file}: rows without a label: {count} (first: {rows}). Fill in or remove them."


class SingleClass(DataError):
    """All rows have the same label."""

    code = "one_class"
    message = "{file} has only the label {label!r}; a classifier needs at least two."


class UnseenLabel(DataError):
    """A label of validation or test does not occur in training."""

    code = "unseen_label"
    message = "Label {label!r} occurs in the {split} split (rows {rows}) but not in training."


class UnknownSplit(DataError):
    """The split column has an unknown value."""

    code = "unknown_split"
    message = "{file}, row {row}: split {value!r} is not one of train, validation, test."


class MissingSplit(DataError):
    """A required split is missing."""

    code = "missing_split"
    message = "{file} defines splits but has no {split} split."


class TooFewRows(DataError):
    """Not enough rows for the requested splits."""

    code = "too_few_rows"
    message = "{available} distinct texts are not enough for {wanted}. Request fewer or add data."


class DataTooLarge(DataError):
    """The file exceeds a limit on rows, columns or sizes."""

    code = "data_too_large"
    message = "{file}: {what} exceeds the limit of {limit}."
