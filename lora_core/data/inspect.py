"""Read a file as training would, and describe it."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lora_core.data import files, table
from lora_core.data.labels import check, similar
from lora_core.data.parts import by_column, with_train
from lora_core.data.profile import Profile
from lora_core.data.rows import SPLIT_COLUMN, Columns, Row
from lora_core.data.split import leaked, normalised
from lora_core.specs.data import Split


def inspect_texts(path: Path, text_column: str = "text") -> Profile:
    """A profile of a file that a model can answer row by row.

    Raises what reading raises (`files.read`, `table.read`).
    """
    rows = files.read(path, Columns(text_column, label=None, look_for_split=False))
    for _ in table.read(path, text_column):  # the other cells
        pass
    return Profile(
        rows=len(rows),
        text_column=text_column,
        label_column=None,
        split_column=None,
        labels={},
        splits={},
        duplicates=len(rows) - len({normalised(row.text) for row in rows}),
        conflicting_duplicates=0,
        leaked=0,
        **_lengths(rows),
    )


def inspect(
    path: Path,
    text_column: str = "text",
    label_column: str = "label",
    split_column: str | None = None,
) -> Profile:
    """A profile of a file that training can use.

    Raises what reading raises (`files.read`), `UnknownSplit`, `MissingSplit`, `OneClass`,
    `UnseenLabel`.
    """
    rows = files.read(path, Columns(text_column, label_column, split_column))
    given = by_column(path.name, rows)
    parts = with_train(path.name, {Split.TRAIN: rows} if given is None else given)
    labels = check(path.name, parts)
    counts = Counter(row.label for row in rows)
    by_text: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        by_text[normalised(row.text)].add(row.label)
    return Profile(
        rows=len(rows),
        text_column=text_column,
        label_column=label_column,
        split_column=None if given is None else split_column or SPLIT_COLUMN,
        labels={label: counts[label] for label in labels},
        similar_labels=similar(labels),
        splits={} if given is None else {part: len(given[part]) for part in Split if part in given},
        duplicates=len(rows) - len(by_text),
        conflicting_duplicates=sum(len(found) > 1 for found in by_text.values()),
        leaked=leaked(parts),
        **_lengths(rows),
    )


def _lengths(rows: Sequence[Row]) -> dict[str, Any]:
    lengths = [len(row.text) for row in rows]
    return {
        "mean_characters": round(sum(lengths) / len(lengths), 1),
        "max_characters": max(lengths),
    }
