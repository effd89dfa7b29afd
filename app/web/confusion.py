"""A confusion matrix: a table while its labels fit into one, a map of squares beyond."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SHADES = 9  # of a cell, by its share of the row
MOST_LABELS = 12  # of the table; with more of them it cannot be read
SHORT = 12  # characters of a label that can head a column; longer ones are numbered
MOST_PAIRS = 12
MOST_SQUARES = 5000  # of the map, the largest


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
class Square:
    """A cell of the map that is not empty."""

    x: int  # number of the answer, from 0
    y: int  # number of the true label
    texts: int
    shade: int  # 1 to `SHADES`
    right: bool


@dataclass(frozen=True)
class Confusion:
    """Rows by true label. `pairs` are mistakes, (label, answer, texts), the most frequent first."""

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

    @property
    def numbered(self) -> bool:
        """Whether columns are headed by the numbers of the labels."""
        return max(map(len, self.labels)) > SHORT

    @property
    def texts(self) -> int:
        """All of the part."""
        return sum(row.texts for row in self.rows)

    @property
    def wrong(self) -> int:
        """Texts that got another label than theirs."""
        return sum(cell.texts for row in self.rows for cell in row.cells if not cell.right)

    @property
    def squares(self) -> list[Square]:
        """The map, without its empty cells."""
        found = [
            Square(x, y, cell.texts, max(1, cell.shade), cell.right)
            for y, row in enumerate(self.rows)
            for x, cell in enumerate(row.cells)
            if cell.texts
        ]
        found.sort(key=lambda square: -square.texts)
        return found[:MOST_SQUARES]
