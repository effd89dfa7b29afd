"""Read a whole file as training reads it, and describe it: a profile and a preview of rows."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from lora_core.data import files, table
from lora_core.data.columns import suggest_columns
from lora_core.data.labels import check_labels, similar_labels
from lora_core.data.rows import SPLIT_COLUMN, ColumnSelection, TextRow, collect_rows
from lora_core.data.split import (
    RowsBySplit,
    count_leaked,
    normalize_text,
    require_train,
    split_by_column,
)
from lora_core.data.tabular import ParseInfo
from lora_core.errors.data import MissingColumn
from lora_core.specs.data import Split
from lora_core.specs.fields import FrozenModel


@dataclass(frozen=True)
class FileContents:
    """All rows of a file, and how they were read."""

    rows: list[TextRow]
    columns: ColumnSelection
    labels: tuple[str, ...]  # in training order; empty if only texts were read
    named_splits: RowsBySplit | None  # the splits that the file defines
    parse_info: ParseInfo

    @property
    def splits(self) -> RowsBySplit:
        """The splits; all rows are in train if the file defines none."""
        return {Split.TRAIN: self.rows} if self.named_splits is None else self.named_splits

    @property
    def split_column(self) -> str | None:
        """The column that defines the splits."""
        return None if self.named_splits is None else self.columns.split or SPLIT_COLUMN


def read_contents(path: Path, columns: ColumnSelection) -> FileContents:
    """Read a file for training, or for prediction if there is no label column.

    Raises what reading raises (`files.read_rows`, `table.read_records`), `UnknownSplit`,
    `MissingSplit`, `SingleClass`, `UnseenLabel`.
    """
    try:
        rows, info = files.read_rows_and_info(path, columns)
    except MissingColumn as error:
        raise suggest_columns(path, columns, error) from error
    if columns.label is None:
        # Validate the cells that are copied to the results.
        for _ in table.read_records(path, columns.text, columns.sheet):
            pass
        return FileContents(rows, columns, (), None, info)
    named_splits = split_by_column(path.name, rows)
    splits = require_train(path.name, {Split.TRAIN: rows} if named_splits is None else named_splits)
    return FileContents(rows, columns, check_labels(path.name, splits), named_splits, info)


# -- Profile --------------------------------------------------------------------------------------


class DatasetProfile(FrozenModel):
    """The profile of a valid file. Texts are compared without surrounding white space."""

    rows: int
    text_column: str
    label_column: str | None  # None: read without labels, so the numbers below are 0
    split_column: str | None  # None: no split column
    labels: dict[str, int]  # rows per label, in training order
    similar_labels: tuple[tuple[str, ...], ...] = ()  # differ in case or white space only
    splits: dict[Split, int]  # empty without a split column
    duplicates: int  # rows whose text also occurs in an earlier row
    conflicting_duplicates: int  # texts that occur with more than one label
    leaked: int  # validation and test rows whose text is also in train
    mean_characters: float
    max_characters: int
    encoding: str | None = None  # of a text table
    separator: str | None = None  # of the cells of a text table
    sheet: str | None = None  # the sheet of a workbook that was read
    blank_rows: int = 0  # skipped


def describe(contents: FileContents) -> DatasetProfile:
    """Return the profile of a file that was read."""
    counts = Counter(row.label for row in contents.rows)
    by_text: dict[str, set[str]] = defaultdict(set)
    for row in contents.rows:
        by_text[normalize_text(row.text)].add(row.label)
    lengths = [len(row.text) for row in contents.rows]
    return DatasetProfile(
        rows=len(contents.rows),
        text_column=contents.columns.text,
        label_column=contents.columns.label,
        split_column=contents.split_column,
        labels={label: counts[label] for label in contents.labels},
        similar_labels=similar_labels(contents.labels),
        splits={
            split: len(rows)
            for split in Split
            if (rows := (contents.named_splits or {}).get(split))
        },
        duplicates=len(contents.rows) - len(by_text),
        conflicting_duplicates=sum(len(labels) > 1 for labels in by_text.values()),
        leaked=count_leaked(contents.splits),
        mean_characters=round(sum(lengths) / len(lengths), 1),
        max_characters=max(lengths),
        encoding=contents.parse_info.encoding,
        separator=contents.parse_info.separator,
        sheet=contents.parse_info.sheet,
        blank_rows=contents.parse_info.blank_rows,
    )


# -- Preview --------------------------------------------------------------------------------------

PREVIEW_CHARACTERS = 2_000  # shown of a text


class PreviewRow(FrozenModel):
    """One row. `row` 1 is the first data row."""

    row: int
    text: str  # the first characters
    characters: int  # length of the whole text
    label: str | None
    split: str | None  # as written in the file


class Preview(FrozenModel):
    """Rows in file order."""

    rows: tuple[PreviewRow, ...]


def preview_rows(path: Path, columns: ColumnSelection, *, after: int, limit: int) -> Preview:
    """Return up to `limit` rows with numbers greater than `after`. Raises what `files.read_rows`
    raises."""
    following = (row for row in files.iter_cells(path, columns) if row[0] > after)
    cells = list(islice(following, limit))
    rows = collect_rows(path.name, iter(cells)) if cells else []
    return Preview(
        rows=tuple(
            PreviewRow(
                row=row.number,
                text=row.text[:PREVIEW_CHARACTERS],
                characters=len(row.text),
                label=row.label or None,
                split=row.split,
            )
            for row in rows
        )
    )
