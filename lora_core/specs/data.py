"""Where texts and labels come from and how they are divided."""

import re
from enum import StrEnum
from pathlib import PurePath
from typing import Annotated

from pydantic import Field, StringConstraints

from lora_core.errors.data import UnsupportedFormat
from lora_core.specs.frozen import Float, Frozen, Int
from lora_core.specs.patterns import NO_NUL

Source = Annotated[str, StringConstraints(min_length=1, max_length=1024, pattern=NO_NUL)]
Column = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=NO_NUL)]
Size = Annotated[Int, Field(ge=1)] | Annotated[Float, Field(gt=0, lt=1)]

ENDINGS = (".csv", ".tsv", ".xlsx", ".jsonl", ".parquet")  # of the files that are read
_SHEET = re.compile(r"(.+\.xlsx)#(.+)", re.IGNORECASE | re.DOTALL)
SPREADSHEETS = (".xls", ".xlsm", ".xlsb", ".ods", ".numbers")  # that are not read
MAX_LENGTH = 512  # tokens of a text, unless a description or its base says less


class Split(StrEnum):
    """The three parts of a data set."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class DataSpec(Frozen):
    """Texts, labels, parts.

    `source` is a packaged sample (`rotten-tomatoes`, `imdb`), a hub data set (`hub:NAME`), a file
    (`.csv`, `.tsv`, `.xlsx`, `.jsonl`, `.parquet`; `reviews.xlsx#Sheet2` names a sheet), or one of
    these per part. A service also takes the name of an uploaded data set and puts the file in its
    place.

    Parts that are given, by file or by `split_column`, are kept. Otherwise they are drawn,
    stratified, by content hash and `split_seed`: a whole number is a count of texts, a fraction a
    share of them.
    """

    source: Source | dict[Split, Source] = "rotten-tomatoes"
    text_column: Column = "text"
    label_column: Column = "label"
    split_column: Column | None = None  # None: a column called "split" is used when there is one
    train_size: Size | None = None  # None: all that is left
    validation_size: Size = 0.1
    test_size: Size = 0.2
    split_seed: Int = Field(default=0, ge=0, lt=2**32)
    # Tokens, [CLS] and [SEP] included. None: MAX_LENGTH, or all positions of a base with fewer.
    max_length: Int | None = Field(default=None, ge=8, le=8192)


def divided(source: str) -> tuple[str, str | None]:
    """The file and the sheet that `reviews.xlsx#Sheet2` names; None: no sheet is named."""
    named = _SHEET.fullmatch(source)
    return (named[1], named[2]) if named else (source, None)


def ending_of(filename: str) -> str:
    """The ending of a file name, one of `ENDINGS`. Raises `UnsupportedFormat`."""
    ending = PurePath(filename).suffix.lower()
    if ending not in ENDINGS:
        reason = f"its name ends in {ending or 'nothing'!r}"
        if ending in SPREADSHEETS:
            reason += "; save it as .xlsx"
        elif ending == ".txt":
            reason += "; if it is a table with a header, name it .tsv or .csv"
        raise UnsupportedFormat(file=filename, reason=reason)
    return ending


def count_of(size: int | float, rows: int) -> int:
    """The texts that a size means: a whole number is a count, a fraction a share of `rows`."""
    return size if isinstance(size, int) else max(1, round(size * rows))
