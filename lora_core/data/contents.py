"""What a sound file holds, read as training would read it."""

from dataclasses import dataclass
from pathlib import Path

from lora_core.data import files, table
from lora_core.data.columns import advised
from lora_core.data.labels import check
from lora_core.data.rows import SPLIT_COLUMN, Columns, Row
from lora_core.data.split import Parts, by_column, with_train
from lora_core.data.tabular import Reading
from lora_core.errors.data import MissingColumn
from lora_core.specs.data import Split


@dataclass(frozen=True)
class Contents:
    """All rows of a file, and what they were read by."""

    rows: list[Row]
    columns: Columns
    labels: tuple[str, ...]  # in the order of training; none: it was read without labels
    given: Parts | None  # the parts that the file names
    reading: Reading

    @property
    def parts(self) -> Parts:
        """Everything is in train where the file names no parts."""
        return {Split.TRAIN: self.rows} if self.given is None else self.given

    @property
    def split_column(self) -> str | None:
        """Where the parts are named."""
        return None if self.given is None else self.columns.split or SPLIT_COLUMN


def read(path: Path, columns: Columns) -> Contents:
    """A file that training can use or, without a label column, a model can answer row by row.

    Raises what reading raises (`files.read`, `table.read`), `UnknownSplit`, `MissingSplit`,
    `OneClass`, `UnseenLabel`.
    """
    try:
        rows, reading = files.read_opened(path, columns)
    except MissingColumn as error:
        raise advised(path, columns, error) from error
    if columns.label is None:
        for _ in table.read(path, columns.text, columns.sheet):  # the cells that results will hold
            pass
        return Contents(rows, columns, (), None, reading)
    given = by_column(path.name, rows)
    parts = with_train(path.name, {Split.TRAIN: rows} if given is None else given)
    return Contents(rows, columns, check(path.name, parts), given, reading)
