"""Some rows of a file, as training reads them."""

from itertools import islice
from pathlib import Path

from lora_core.data import files
from lora_core.data.rows import Columns, collect
from lora_core.specs.frozen import Frozen

CHARACTERS = 2_000  # of a text that are shown


class PreviewRow(Frozen):
    """One row. `row` 1 is the first row of data."""

    row: int
    text: str  # the first characters of it
    characters: int  # that it has
    label: str | None
    split: str | None  # as it stands there


class Preview(Frozen):
    """Rows in the order of the file."""

    rows: tuple[PreviewRow, ...]


def preview(path: Path, columns: Columns, *, after: int, limit: int) -> Preview:
    """Up to `limit` rows with numbers above `after`. Raises what `files.read` raises."""
    following = (row for row in files.cells(path, columns) if row[0] > after)
    cells = list(islice(following, limit))
    rows = collect(path.name, iter(cells)) if cells else []
    return Preview(
        rows=tuple(
            PreviewRow(
                row=row.number,
                text=row.text[:CHARACTERS],
                characters=len(row.text),
                label=row.label or None,
                split=row.split,
            )
            for row in rows
        )
    )
