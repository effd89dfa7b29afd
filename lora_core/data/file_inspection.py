"""Read a whole file as training reads it, and describe it: profile, preview, columns."""

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field

from lora_core.data import chat, files, label_studio, mistral_labels, text_files
from lora_core.data.label_readers import build_targets_spec, decode_label_names
from lora_core.data.rows import (
    MAX_COLUMNS,
    SPLIT_COLUMN,
    ColumnSelection,
    ParseInfo,
    TextRow,
    check_column_limit,
    collect_rows,
    normalize_column_name,
)
from lora_core.data.split import (
    RowsBySplit,
    collect_and_check_label_names,
    count_leaked,
    find_label_spelling_variants,
    group_rows_by_split,
    require_train_split,
)
from lora_core.data.stratify import normalize_text, normalized_text_key
from lora_core.errors.data import DataError, MissingColumn
from lora_core.specs.chat import PromptFormat
from lora_core.specs.data import Split
from lora_core.specs.fields import FrozenModel
from lora_core.specs.task import TaskType


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

    Raises what reading raises (`files.read_rows`, `files.iter_whole_rows`), `InvalidSplitValue`,
    `MissingSplit`, `SingleClass`, `UnseenLabel`.
    """
    try:
        rows, info = files.read_rows_and_info(path, columns)
    except MissingColumn as error:
        raise enrich_missing_column_error(path, columns, error) from error
    if columns.label is None:
        # Validate the cells that are copied to the results.
        records = files.iter_whole_rows(path, columns.text, columns.sheet, pair_column=columns.pair)
        for _ in records:
            pass
        return FileContents(rows, columns, (), None, info)
    named_splits = group_rows_by_split(path.name, rows)
    splits = require_train_split(
        path.name, {Split.TRAIN: rows} if named_splits is None else named_splits
    )
    labels = collect_and_check_label_names(path.name, splits, columns.label_format)
    return FileContents(rows, columns, labels, named_splits, info)


# -- Profile --------------------------------------------------------------------------------------


class DatasetProfile(FrozenModel):
    """The profile of a valid file. Texts are compared without surrounding white space."""

    rows: int
    text_column: str
    # None, and then left out: each row has one text
    text_pair_column: str | None = Field(default=None, exclude_if=lambda value: value is None)
    label_column: str | None  # None: read without labels, so the numbers below are 0
    # what the labels are; left out if they are names, one in each row
    task: TaskType = Field(default="single_label", exclude_if=lambda value: value == "single_label")
    ordered: bool = Field(default=False, exclude_if=lambda value: not value)
    label_separator: str | None = Field(default=None, exclude_if=lambda value: value is None)
    label_columns: tuple[str, ...] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    # Several targets: how each is read, as in the spec
    targets: dict[str, dict[str, Any]] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    split_column: str | None  # None: no split column
    labels: dict[str, int]  # rows per label, in training order; empty for numbers
    similar_labels: tuple[tuple[str, ...], ...] = ()  # see `find_label_spelling_variants`
    splits: dict[Split, int]  # empty without a split column
    duplicates: int  # rows whose text also occurs in an earlier row
    conflicting_duplicates: int  # texts that occur with more than one label
    leaked: int  # validation and test rows whose text is also in train
    mean_characters: float  # of a text, or of both texts of a pair
    max_characters: int
    encoding: str | None = None  # of a text table
    separator: str | None = None  # of the cells of a text table
    sheet: str | None = None  # the sheet of a workbook that was read
    blank_rows: int = 0  # skipped
    # of a file in chat form, and left out for others
    prompt_format: PromptFormat | None = Field(default=None, exclude_if=lambda value: value is None)


def build_profile(contents: FileContents) -> DatasetProfile:
    """Return the profile of a file that was read."""
    label_format = contents.columns.label_format
    counts = Counter(
        name for row in contents.rows for name in decode_label_names(row.label, label_format.task)
    )
    by_text: dict[str, set[str]] = defaultdict(set)
    for row in contents.rows:
        by_text[normalized_text_key(row)].add(row.label)
    lengths = [row.characters for row in contents.rows]
    return DatasetProfile(
        rows=len(contents.rows),
        text_column=contents.columns.text,
        text_pair_column=contents.columns.pair,
        label_column=contents.columns.label,
        task=label_format.task,
        ordered=label_format.ordered,
        label_separator=label_format.separator,
        label_columns=label_format.columns,
        targets=build_targets_spec(label_format.targets) or None,
        split_column=contents.split_column,
        labels={label: counts[label] for label in contents.labels if label in counts},
        similar_labels=find_label_spelling_variants(contents.labels),
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
        prompt_format=contents.parse_info.prompt_format,
    )


# -- Preview --------------------------------------------------------------------------------------

PREVIEW_CHARACTERS = 2_000  # shown of a text


class PreviewRow(FrozenModel):
    """One row. `row` 1 is the first data row."""

    row: int
    text: str  # the first characters
    # of a pair, the first characters of the second text
    text_pair: str | None = Field(default=None, exclude_if=lambda value: value is None)
    characters: int  # length of the whole text, or of both
    label: str | None
    split: str | None  # as written in the file


class Preview(FrozenModel):
    """Rows in file order."""

    rows: tuple[PreviewRow, ...]


def preview_rows(path: Path, columns: ColumnSelection, *, after: int, limit: int) -> Preview:
    """Return up to `limit` rows with numbers greater than `after`. Raises what `files.read_rows`
    raises."""
    following = (row for row in files.open_rows(path, columns).cells if row[0] > after)
    cells = list(islice(following, limit))
    rows = collect_rows(path.name, iter(cells), columns) if cells else []
    return Preview(
        rows=tuple(
            PreviewRow(
                row=row.number,
                text=row.text[:PREVIEW_CHARACTERS],
                text_pair=row.pair if row.pair is None else row.pair[:PREVIEW_CHARACTERS],
                characters=row.characters,
                label=row.label or None,
                split=row.split,
            )
            for row in rows
        )
    )


# -- Search for a text ----------------------------------------------------------------------------

MAX_FOUND_ROWS = 100


class WantedText(FrozenModel):
    """A text to find, also as a part of a pair; or a pair."""

    text: str
    text_pair: str | None = None


class FoundRows(FrozenModel):
    """The rows that have a text: how many, and the numbers of the first."""

    count: int
    rows: tuple[int, ...]


def find_rows_by_text(path: Path, columns: ColumnSelection, wanted: WantedText) -> FoundRows:
    """Return the rows with a text, compared as duplicates are. Raises what `files.read_rows`
    raises."""
    text = normalize_text(wanted.text)
    pair = None if wanted.text_pair is None else normalize_text(wanted.text_pair)
    found = []
    for row in files.read_rows(path, columns):
        sides = [normalize_text(each) for each in (row.text, row.pair) if each is not None]
        if (text in sides) if pair is None else (sides == [text, pair]):
            found.append(row.number)
    return FoundRows(count=len(found), rows=tuple(found[:MAX_FOUND_ROWS]))


# -- Whole texts ----------------------------------------------------------------------------------


class WriteTextsResult(FrozenModel):
    """How many texts were written."""

    rows: int


def extract_texts_to_jsonl(path: Path, columns: ColumnSelection, out: Path) -> WriteTextsResult:
    """Write `[row number, text, second text or null]` of each row to a file, one JSON per line.

    Raises what `files.read_rows` raises.
    """
    rows = files.read_rows(path, columns)
    with out.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps([row.number, row.text, row.pair], ensure_ascii=False) + "\n")
    return WriteTextsResult(rows=len(rows))


# -- Columns: the first rows of a file, and which columns hold texts and labels -------------------

_GUESS_ROWS = 200  # rows that a guess is based on
_HEAD_ROWS = 5
HEAD_CHARACTERS = 200  # shown of a cell
MIN_LABEL_REPEATS = 2  # minimum mean number of rows per label

FileCells = tuple[list[str], list[list[str]]]  # column names, cells of the first rows
FileHead = tuple[list[str], list[list[str]], ParseInfo]  # and how they were parsed


class ColumnGuess(NamedTuple):
    """The columns of texts and labels; None if unknown."""

    text: str | None
    label: str | None


class FileLayout(FrozenModel):
    """The columns of a file, and its first rows as strings."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]  # the first rows, long cells truncated
    text_column: str | None  # a guess
    label_column: str | None  # a guess
    encoding: str | None
    separator: str | None
    sheet: str | None
    sheets: tuple[str, ...]  # visible sheets of the workbook
    # the labels of lines that have an object of them, and what they are; left out for other files
    targets: dict[str, TaskType] | None = Field(
        default=None, exclude_if=lambda value: value is None
    )


def read_file_layout(path: Path, sheet: str | None = None) -> FileLayout:
    """Return the columns and first rows of a file. Raises what `files.read_rows` raises, except for
    columns and labels."""
    names, rows, info = _read_head(path, sheet)
    guessed = guess_columns(names, rows)
    return FileLayout(
        columns=tuple(names),
        rows=tuple(tuple(cell[:HEAD_CHARACTERS] for cell in row) for row in rows[:_HEAD_ROWS]),
        text_column=guessed.text,
        label_column=guessed.label,
        encoding=info.encoding,
        separator=info.separator,
        sheet=info.sheet,
        sheets=info.sheets,
        targets=_label_objects(path),
    )


def _label_objects(path: Path) -> dict[str, TaskType] | None:
    """Return the labels of lines that have an object of them; None for other files."""
    is_json_lines = path.suffix.lower() == ".jsonl"
    return (mistral_labels.infer_task_type_by_target(path) or None) if is_json_lines else None


def guess_columns(names: Sequence[str], rows: Sequence[Sequence[str]]) -> ColumnGuess:
    """Guess by name (`text` and `label` in any case), else by content.

    By content, texts are the column with the longest cells, and labels the one with the fewest
    distinct values. Labels are repeated: a column of unique values or of a single value is no
    label.
    """
    columns = {
        name: [row[i] for row in rows]
        for i, name in enumerate(names)
        if normalize_column_name(name)
    }
    by_name = {normalize_column_name(name).casefold(): name for name in columns}
    text = by_name.get("text") or max(
        (name for name, cells in columns.items() if any(cells)),
        key=lambda name: sum(map(len, columns[name])),
        default=None,
    )
    candidates = {}
    for name, cells in columns.items():
        filled = [cell for cell in cells if cell.strip()]
        distinct = len(set(filled))
        repeated = 2 <= distinct <= len(filled) / MIN_LABEL_REPEATS
        if repeated and name != text and normalize_column_name(name).casefold() != SPLIT_COLUMN:
            candidates[name] = distinct
    label = by_name.get("label") or min(candidates, key=lambda name: candidates[name], default=None)
    return ColumnGuess(text, label if label != text else None)


def enrich_missing_column_error(
    path: Path, selected: ColumnSelection, error: MissingColumn
) -> MissingColumn:
    """Return the same error with advice: where the header is, which columns are likely, and which
    other sheets there are. It stays the same if the first rows cannot be read."""
    detail = dict(error.detail)
    with suppress(DataError):
        if (row := files.find_misplaced_header_row(path, selected)) is not None:
            detail["advice"] = f"The header seems to be in row {row}: delete the rows above it"
            return MissingColumn(**detail)
    with suppress(DataError):
        detail |= _suggest_columns(path, selected, error)
    if path.suffix.lower() == ".xlsx":
        info = files.open_table(path, ".xlsx", selected.sheet).parse_info
        if others := [repr(name) for name in info.sheets if name != info.sheet]:
            detail["advice"] += (
                f". The sheet {info.sheet!r} was read; others are {', '.join(others)} (`sheet`, "
                "`--sheet`)"
            )
    return MissingColumn(**detail)


def _suggest_columns(path: Path, selected: ColumnSelection, error: MissingColumn) -> dict[str, str]:
    """Return what to add to the error. Raises what reading the first rows raises."""
    if error.detail["column"] in (selected.label_format.columns or ()):
        return {"advice": "Name the columns of 0 and 1 with `label_columns` (`--label-columns`)"}
    if error.detail["column"] in selected.label_format.columns_instead_of_label:
        return {
            "advice": "Name the column of each target with its `column`, if it has another name"
        }
    names, rows, _ = _read_head(path, selected.sheet)
    text, label = guess_columns(names, rows)
    guessed = {"text_column": text, "label_column": selected.label and label}
    suggested = {name: column for name, column in guessed.items() if column is not None}
    if not suggested or error.detail["column"] == selected.split:
        return {}
    options = [f"--{name.replace('_', '-')} {shlex.quote(suggested[name])}" for name in suggested]
    fields = [f"`{name}` {column!r}" for name, column in suggested.items()]
    advice = f"You probably want {' and '.join(fields)} (`{' '.join(options)}`)"
    return {"advice": advice, **suggested}


def _read_head(path: Path, sheet: str | None) -> FileHead:
    suffix = files.validate_file_and_get_suffix(path, sheet)
    info = ParseInfo()
    match suffix:
        case ".parquet":
            names, rows = _parquet_head(path)
        case ".jsonl":
            label = next(iter(mistral_labels.infer_task_type_by_target(path)), chat.LABEL)
            columns = ColumnSelection(label=label)
            try:
                numbered, info.prompt_format = mistral_labels.read_jsonl_as_flat_objects(
                    path, columns
                )
                names, rows = _objects_head(numbered)
            except DataError:  # no answers that are labels: other fields may be text and label
                names, rows = _objects_head(text_files.iter_json_lines(path))
        case ".json":
            names, rows = _objects_head(
                label_studio.read_flattened_tasks(path, ColumnSelection(label=None), info)
            )
        case _:
            table = files.open_table(path, suffix, sheet)
            names, info = table.header, table.parse_info
            rows = [cells for _, cells in islice(table.rows, _GUESS_ROWS)]
    check_column_limit(path.name, names)
    return names, rows, info


def _objects_head(numbered: Iterable[tuple[int, dict[str, Any]]]) -> FileCells:
    objects = [record for _, record in islice(numbered, _GUESS_ROWS)]
    names = list(dict.fromkeys(name for each in objects for name in each))
    return names, [[_as_text(each.get(name)) for name in names] for each in objects]


def _parquet_head(path: Path) -> FileCells:
    from lora_core.data import arrow  # pyarrow is slow to import
    from lora_core.data.arrow import ArrowCellDecoder

    with arrow.open_parquet(path) as file:
        names = list(file.schema_arrow.names)
        decoder = ArrowCellDecoder(path.name)
        batches = arrow.iter_batches(file, names[:MAX_COLUMNS])
        values = (map(decoder.decode_column, batch.columns) for batch in batches)
        rows = chain.from_iterable(zip(*each, strict=True) for each in values)
        return names, [list(map(_as_text, row)) for row in islice(rows, _GUESS_ROWS)]


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
