"""Causes of texts and labels that cannot be used."""

from typing import Any

from lora_core.errors import LoraCoreError


class DataError(LoraCoreError):
    """The texts and labels cannot be used."""


class DataNotFound(DataError):
    """There is no such data."""

    code = "data_not_found"
    message = "No data {source!r}: {reason}."


class UnsupportedFormat(DataError):
    """A file type that is not read."""

    code = "unsupported_format"
    message = (
        "{file} is not a supported file: {reason}. Supported: .csv, .tsv, .xlsx, .jsonl, .parquet."
    )


class EmptyData(DataError):
    """No rows."""

    code = "empty_data"
    message = "{file} has no rows."


class BrokenRows(DataError):
    """A row that cannot be parsed."""

    code = "broken_rows"
    message = "{file}, row {row}: {problem}."


class WrongEncoding(DataError):
    """The encoding of the file cannot be determined."""

    code = "wrong_encoding"
    message = (
        "{file}, row {row}: not valid UTF-8, and no other encoding is certain. Save the file as "
        "UTF-8 (in Excel: CSV UTF-8) or as .xlsx."
    )


class NulByte(DataError):
    """A NUL byte in a text file."""

    code = "nul_byte"
    message = "{file}, row {row}: contains a NUL byte. Remove it; text files have none."


class MissingColumn(DataError):
    """A column that is not there."""

    code = "missing_column"
    message = "{file} has no column {column!r}. Columns: {available}. {advice}."

    def __init__(
        self,
        *,
        advice: str = "Name yours by `text_column`, `label_column` or `split_column` "
        "(`--text-column` and so on)",
        **detail: Any,
    ) -> None:
        super().__init__(advice=advice, **detail)


class MissingSheet(DataError):
    """The workbook has no such sheet."""

    code = "missing_sheet"
    message = "{file} has no sheet {sheet!r}. Sheets: {available}."


class WrongSeparator(DataError):
    """All cells of a row are in one column."""

    code = "wrong_separator"
    message = (
        "{file} has one column, {column!r}: its cells seem to be separated by {separator!r}. Save "
        "it as .csv, or divide the column in the spreadsheet."
    )


class ColumnTaken(DataError):
    """A column with a name that the answers need."""

    code = "column_taken"
    message = (
        "{file} has a column {column!r}, under which a prediction run writes its answers. "
        "Rename it."
    )


class EmptyText(DataError):
    """Rows without text."""

    code = "empty_text"
    message = "{file}: no text in {count} of the rows, first in {rows}. Fill in or remove them."


class MissingLabel(DataError):
    """Rows without a label."""

    code = "missing_label"
    message = "{file}: no label in {count} of the rows, first in {rows}. Fill in or remove them."


class OneClass(DataError):
    """Nothing to tell apart."""

    code = "one_class"
    message = "{file} has only the label {label!r}; a classifier needs at least two."


class UnseenLabel(DataError):
    """A label in validation or test that training never shows."""

    code = "unseen_label"
    message = "The label {label!r} is in the {split} part (rows {rows}) but not in training."


class UnknownSplit(DataError):
    """A split column with a value that names no part."""

    code = "unknown_split"
    message = "{file}, row {row}: split {value!r} is not one of train, validation, test."


class MissingSplit(DataError):
    """Given splits without a part that is needed."""

    code = "missing_split"
    message = "{file} names its splits but has no {split} part."


class TooFewRows(DataError):
    """Not enough rows for the parts that were asked for."""

    code = "too_few_rows"
    message = "{available} distinct texts cannot give {wanted}; ask for less or add data."


class DataTooLarge(DataError):
    """Over a limit on rows, columns or cell size."""

    code = "data_too_large"
    message = "{file}: {what} is over the limit of {limit}."
