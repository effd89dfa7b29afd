"""Where texts and labels come from and how they are split."""

import re
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from lora_core.errors.data import UnsupportedFormat
from lora_core.specs.chat import PromptFormat
from lora_core.specs.fields import NO_NUL_PATTERN, Float, FrozenModel, Int, looks_like_path

SourceName = Annotated[
    str, StringConstraints(min_length=1, max_length=1024, pattern=NO_NUL_PATTERN)
]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=NO_NUL_PATTERN)]
Separator = Annotated[str, StringConstraints(min_length=1, max_length=8, pattern=NO_NUL_PATTERN)]
SplitSize = Annotated[Int, Field(ge=1)] | Annotated[Float, Field(gt=0, lt=1)]

SUFFIXES = (".csv", ".tsv", ".xlsx", ".jsonl", ".json", ".parquet")  # supported file formats
_SHEET = re.compile(r"(.+\.xlsx)#(.+)", re.IGNORECASE | re.DOTALL)
UNSUPPORTED_SPREADSHEETS = (".xls", ".xlsm", ".xlsb", ".ods", ".numbers")
MAX_LENGTH = 512  # tokens per text, unless the spec or the base model sets less


LongTexts = Literal["cut", "windows"]


class Split(StrEnum):
    """The three splits of a dataset."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


SPLIT_NAMES = {
    "train": Split.TRAIN,
    "validation": Split.VALIDATION,
    "valid": Split.VALIDATION,
    "val": Split.VALIDATION,
    "dev": Split.VALIDATION,
    "test": Split.TEST,
}


def split_from_name(value: str) -> Split | None:
    """Return the split for a name, ignoring case; None for unknown names."""
    return SPLIT_NAMES.get(value.strip().lower())


class DataSpec(FrozenModel):
    """Texts, labels and splits.

    `source` is a packaged sample (`rotten-tomatoes`, `imdb`), a hub dataset (`hub:NAME`, or
    `hub:NAME:CONFIG` for one with several configurations), a file (`.csv`, `.tsv`, `.xlsx`,
    `.jsonl`, `.json`, `.parquet`; `reviews.xlsx#Sheet2` selects a sheet), or one of these per
    split. A service also accepts the name of an uploaded dataset and replaces it with the file.

    Splits that are given, by file or by `split_column`, are kept. The others are drawn from the
    training texts, stratified, by content hash and `split_seed`. A whole number is a count of
    texts, a fraction is a share of them.
    """

    source: SourceName | dict[Split, SourceName] = "rotten-tomatoes"
    text_column: ColumnName = "text"
    # The second text of each row, for a task on pairs of texts. None: a row has one text. The field
    # is left out of stored specs then, like `prompt_format`.
    text_pair_column: ColumnName | None = Field(
        default=None, exclude_if=lambda value: value is None
    )
    label_column: ColumnName = "label"
    # Of a multi-label task whose labels are text in one cell, or 0 and 1 in one column each. They
    # are left out of stored specs if unused, like `prompt_format`.
    label_separator: Separator | None = Field(default=None, exclude_if=lambda value: value is None)
    label_columns: tuple[ColumnName, ...] | None = Field(
        default=None, min_length=1, max_length=512, exclude_if=lambda value: value is None
    )
    split_column: ColumnName | None = None  # None: use a column named "split" if there is one
    train_size: SplitSize | None = None  # None: all remaining texts
    validation_size: SplitSize = 0.1
    test_size: SplitSize = 0.2
    split_seed: Int = Field(default=0, ge=0, lt=2**32)
    # In tokens, including [CLS] and [SEP]. None: MAX_LENGTH, or the positions of a base model with
    # fewer.
    max_length: Int | None = Field(default=None, ge=8, le=8192)
    # What happens to longer texts: the rest is cut off, or they are read in overlapping windows of
    # `max_length` tokens, whose logits are averaged (`lora_core.data.windows`).
    long_texts: LongTexts = Field(default="cut", exclude_if=lambda value: value == "cut")
    # Of files in chat form. None: that of the training file, if it is one. It is left out of stored
    # specs then, which are the same as before the field existed.
    prompt_format: PromptFormat | None = Field(default=None, exclude_if=lambda value: value is None)

    @field_validator("label_columns")
    @classmethod
    def _distinct(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if value is not None and len({name.strip() for name in value}) < len(value):
            raise ValueError("label_columns has the same name twice")
        return value

    @field_validator("label_columns")
    @classmethod
    def _one_form(
        cls, value: tuple[str, ...] | None, info: ValidationInfo
    ) -> tuple[str, ...] | None:
        if value is not None and info.data.get("label_separator") is not None:
            raise ValueError("label_columns and label_separator exclude each other: omit one")
        return value


def parse_sheet_suffix(source: str) -> tuple[str, str | None]:
    """Split `reviews.xlsx#Sheet2` into file and sheet; the sheet is None if none is named."""
    named = _SHEET.fullmatch(source)
    return (named[1], named[2]) if named else (source, None)


def local_paths(sources: Iterable[str]) -> list[Path]:
    """Return the files of the sources that are paths, not names of samples or datasets."""
    return [Path(parse_sheet_suffix(each)[0]) for each in sources if looks_like_path(each)]


def parse_file_suffix(filename: str) -> str:
    """Return the suffix of a file name, one of `SUFFIXES`. Raises `UnsupportedFormat`."""
    suffix = PurePath(filename).suffix.lower()
    if suffix not in SUFFIXES:
        reason = f"its name ends in {suffix or 'nothing'!r}"
        if suffix in UNSUPPORTED_SPREADSHEETS:
            reason += "; save it as .xlsx"
        elif suffix == ".txt":
            reason += "; if it is a table with a header, name it .tsv or .csv"
        raise UnsupportedFormat(file=filename, reason=reason)
    return suffix


def resolve_split_size(size: int | float, rows: int) -> int:
    """Return the number of texts for a size: an int is a count, a float a share of `rows`."""
    return size if isinstance(size, int) else max(1, round(size * rows))
