"""Errors of reading, checking and splitting texts and labels."""

from collections.abc import Sequence
from typing import Any

from lora_core.errors import LoraCoreError

MAX_ROWS_IN_ERROR = 10  # row numbers in an error message


def format_row_numbers(numbers: Sequence[int]) -> str:
    """Return the first row numbers for a message."""
    return ", ".join(map(str, numbers[:MAX_ROWS_IN_ERROR]))


class DataError(LoraCoreError):
    """The texts and labels cannot be used."""


class DataNotFound(DataError):
    code = "data_not_found"
    title = "Data not found."
    message = "No data {source!r}: {reason}."


class GatedDataset(DataError):
    code = "gated_dataset"
    title = "The dataset is gated on the hub."
    message = (
        "{source!r} is gated: its owner decides who may download it, and {problem}. Accept the "
        "terms at {page}, and set HF_TOKEN of each worker to a token that may read it."
    )


class HubConfigRequired(DataError):
    code = "hub_config_required"
    title = "The dataset has several configurations, and none is named."
    message = "{source!r} has several configurations. Name one, such as {example!r}: {available}."


class UnknownHubConfig(DataError):
    code = "unknown_hub_config"
    title = "The dataset has no configuration of this name."
    message = "{source!r} names a configuration that does not exist. Available: {available}."


class UnsupportedFormat(DataError):
    code = "unsupported_format"
    title = "Unsupported file format."
    message = (
        "{file} is not a supported file: {reason}. Supported: .csv, .tsv, .xlsx, .jsonl, .json, "
        ".parquet."
    )


class EmptyData(DataError):
    code = "empty_data"
    title = "The file has no rows."
    message = "{file} has no rows."


class NoRowsLeftAfterErasure(DataError):
    code = "no_rows_left"
    title = "No row would be left."
    message = "Every row of {file} has a text that must be forgotten. Delete the dataset instead."


class MalformedRow(DataError):
    code = "malformed_row"
    title = "A row cannot be parsed."
    message = "{file}, row {row}: {problem}."


class UndecodableText(DataError):
    code = "wrong_encoding"
    title = "The text encoding of the file cannot be determined."
    message = (
        "{file}, row {row}: not valid UTF-8, and no other encoding fits. Save the file as "
        "UTF-8 (in Excel: CSV UTF-8) or as .xlsx."
    )


class NulByte(DataError):
    code = "nul_byte"
    title = "The file contains a NUL byte."
    message = "{file}, row {row}: contains a NUL byte, not allowed in text files. {advice}."

    def __init__(self, *, advice: str = "Remove it", **detail: Any) -> None:
        super().__init__(advice=advice, **detail)


class MissingColumn(DataError):
    code = "missing_column"
    title = "A required column is missing."
    message = "{file} has no column {column!r}. Columns: {available}. {advice}."

    def __init__(
        self,
        *,
        advice: str = "Name the right one with `text_column`, `text_pair_column`, `label_column` "
        "or `split_column` (`--text-column` and so on)",
        **detail: Any,
    ) -> None:
        super().__init__(advice=advice, **detail)


class SameTextPairColumn(DataError):
    code = "same_column"
    title = "Both texts of a pair are read from the same column."
    message = (
        "`text_column` and `text_pair_column` are both {column!r}. Name the column of the second "
        "text with `text_pair_column` (`--text-pair-column`), or omit it for single texts."
    )


class MissingSheet(DataError):
    code = "missing_sheet"
    title = "The workbook does not have this sheet."
    message = "{file} has no sheet {sheet!r}. Sheets: {available}."


class WrongSeparator(DataError):
    code = "wrong_separator"
    title = "All cells of a row are in one column."
    message = (
        "{file} has one column, {column!r}: its cells seem to be separated by {separator!r}. Save "
        "it as .csv, or split the column in the spreadsheet."
    )


class ReservedColumn(DataError):
    code = "reserved_column"
    title = "A column has a name that is reserved for predictions."
    message = "{file} has a column {column!r}, a name that is reserved for predictions. Rename it."


class MissingText(DataError):
    code = "empty_text"
    title = "Some rows have no text."
    message = "{file}: rows without text: {count} (first: {rows}). Fill in or remove them."


class IncompletePair(DataError):
    code = "incomplete_pair"
    title = "Some pairs have only one text."
    message = (
        "{file}: pairs of which one text is empty: {count} (first: {rows}). Fill in both texts or "
        "remove these rows."
    )


class MissingLabel(DataError):
    code = "missing_label"
    title = "Some rows have no label."
    message = "{file}: rows without a label: {count} (first: {rows}). Fill in or remove them."


class MissingTargetValue(DataError):
    code = "missing_target"
    title = "Some rows lack a value of a target."
    message = (
        "{file}: rows without a value of the target {target!r} (column {columns}): {count} (first: "
        "{rows}). Each row needs a value of every target: fill them in or remove the rows."
    )


class EmptyLabelInSet(DataError):
    code = "empty_label"
    title = "A label in a list of labels is empty."
    message = (
        "{file}, row {row}: one of its labels is empty. Remove it; a text without any label has an "
        "empty list."
    )


class MalformedLabelSet(DataError):
    code = "malformed_label_set"
    title = "A cell is not a list of labels."
    message = (
        "{file}, row {row}: {problem}. The labels of a multi-label task are a JSON list of strings "
        'such as ["a", "b"], or text with `data.label_separator` (`--label-separator`), or '
        "columns of 0 and 1 named in `data.label_columns` (`--label-columns`)."
    )


class LabelNotBinary(DataError):
    code = "label_not_binary"
    title = "A label column has a value other than 0 and 1."
    message = "{file}, row {row}: label column {column!r} has {value!r}, which is neither 0 nor 1."


class LabelNotNumber(DataError):
    code = "label_not_number"
    title = "Some labels of a regression are not numbers."
    message = (
        "{file}: labels that are not finite numbers: {count} of {of} (first rows: {rows}; the "
        "first is {value!r}). {advice}."
    )

    def __init__(
        self,
        *,
        advice: str = "Correct or remove them, or use a task with labels (`task.type` "
        "single_label)",
        **detail: Any,
    ) -> None:
        super().__init__(advice=advice, **detail)


class DecimalComma(DataError):
    code = "decimal_comma"
    title = "Numbers have a decimal comma."
    message = (
        "{file}: numbers with a comma: {count} (first rows: {rows}; the first is {value!r}). "
        "Write them with a decimal point and without thousands separators."
    )


class FreeTextChatAnswers(DataError):
    code = "free_text_answers"
    title = "The answers are free text, not labels."
    message = (
        "{file}: {count} of {of} answers are {reason} (first rows: {rows}), so they are free text "
        "and not labels. A classifier learns which of a few labels a text has: use a file whose "
        "answers are labels."
    )


class NoAnnotations(DataError):
    code = "no_annotations"
    title = "No task of the Label Studio export has an annotation."
    message = (
        "{file}: none of its {count} tasks has a submitted annotation with choices. Annotate some "
        "in Label Studio and export again, or upload the file for predictions only "
        "(`purpose` predict, `--purpose predict`)."
    )


class NoChoiceAnnotations(DataError):
    code = "no_choices"
    title = "The annotations of the Label Studio export are not choices."
    message = (
        "{file} has no annotations of a <Choices> control, which a classifier learns from. It has "
        "{found}. Export a project that labels whole texts with <Choices>."
    )


class SeveralLabelStudioChoices(DataError):
    code = "several_choices"
    title = "A text of the Label Studio export has several choices, but one label is read."
    message = (
        "{file}, row {row}: {count} choices of {control!r}, but one label is read for each text. "
        "To read sets of labels, use the task multi_label (`task`, `--task multi_label`)."
    )


class SingleClass(DataError):
    code = "one_class"
    title = "All rows have the same label."
    message = "{file} has only the label {label!r}; a classifier needs at least two."


class AllLabelSetsEmpty(DataError):
    code = "all_unlabeled"
    title = "No training text has any label."
    message = "{file}: no training text has any label; a multi-label task needs at least one label."


class ConstantLabelSets(DataError):
    code = "same_labels"
    title = "All training texts have the same labels."
    message = (
        "{file}: all training texts have the same labels, {labels}, so there is nothing to learn. "
        "Add texts that lack some of them."
    )


class LabelWithoutPositives(DataError):
    code = "label_without_positives"
    title = "No training text has a label that was named."
    message = (
        "{file}: label column {column!r} is 0 in all training rows. Add texts with this label, or "
        "leave it out of `data.label_columns` (`--label-columns`)."
    )


class ConstantNumbers(DataError):
    code = "constant_numbers"
    title = "All training texts have the same number."
    message = "{file}: all training texts have the number {value}, so there is nothing to learn."


class UnseenLabel(DataError):
    code = "unseen_label"
    title = "A label of validation or test does not occur in training."
    message = "Label {label!r} occurs in the {split} split (rows {rows}) but not in training."


class InvalidSplitValue(DataError):
    code = "invalid_split_value"
    title = "The split column has an unknown value."
    message = (
        "{file}, row {row}: split {value!r} is not one of train, validation (or valid, val, dev) "
        "and test, in upper or lower case. If the column is something else, rename it."
    )


class MissingSplit(DataError):
    code = "missing_split"
    title = "A required split is missing."
    message = "{file} defines splits but has no {split} split."


class TooFewRows(DataError):
    code = "too_few_rows"
    title = "Not enough rows for the requested splits."
    message = "{available} distinct texts are not enough for {wanted}. Request fewer or add data."


class RowNumbersNotFound(DataError):
    code = "row_not_found"
    title = "The file has no row with this number."
    message = (
        "{file}: {count} of the rows do not exist (first: {rows}). Row 1 is the first data row, "
        "and blank lines count; see `GET /v1/datasets/DATASET/rows`."
    )


class UnchangedLabel(DataError):
    code = "label_unchanged"
    title = "The row already has this label."
    message = (
        "{file}, row {row}: the label is {label!r} already. To confirm a label, list its row in "
        "`keep`."
    )


class LabelNotWritable(DataError):
    code = "label_not_writable"
    title = "The label does not fit the format of the file."
    message = (
        "{file}, row {row}: the label {label!r} cannot be written so that the file is read as "
        "before. Change the file yourself and upload it."
    )


class DataTooLarge(DataError):
    code = "data_too_large"
    title = "The file exceeds a limit on rows, columns or sizes."
    message = "{file}: {what} exceeds the limit of {limit}."
