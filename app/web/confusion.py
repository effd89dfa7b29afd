"""A confusion matrix as a table: what a label was taken for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHADES = 9  # of a cell, by its share of the row
MOST_LABELS = 12  # with more of them a table cannot be read
MOST_PAIRS = 12


@dataclass(frozen=True)
class Cell:
    """How many texts of one label were given another one, or the same."""

    texts: int
    shade: int  # 0 to `SHADES`
    right: bool


@dataclass(frozen=True)
class Row:
    """The texts of one label."""

    label: str
    cells: list[Cell]
    precision: float
    recall: float
    f1: float
    texts: int


@dataclass(frozen=True)
class Confusion:
    """Rows by true label. `pairs` are (label, taken for, texts), the most frequent first."""

    labels: Sequence[str]
    rows: list[Row]
    pairs: list[tuple[str, str, int]]

    @classmethod
    def of(cls, labels: Sequence[str], figures: Mapping[str, Any]) -> "Confusion":
        """From the figures of a part in the summary of a job."""
        matrix = figures["confusion_matrix"]
        rows = [
            Row(
                label=label,
                cells=[
                    Cell(texts, round(SHADES * texts / max(1, sum(counts))), right=i == j)
                    for j, texts in enumerate(counts)
                ],
                precision=figures["per_class"][label]["precision"],
                recall=figures["per_class"][label]["recall"],
                f1=figures["per_class"][label]["f1"],
                texts=sum(counts),
            )
            for i, (label, counts) in enumerate(zip(labels, matrix, strict=True))
        ]
        pairs = [
            (row.label, labels[j], cell.texts)
            for row in rows
            for j, cell in enumerate(row.cells)
            if cell.texts and not cell.right
        ]
        pairs.sort(key=lambda pair: -pair[2])
        return cls(labels, rows, pairs[:MOST_PAIRS])

    @property
    def small(self) -> bool:
        """Whether the table can be read."""
        return len(self.labels) <= MOST_LABELS
