"""A confusion matrix: a table for up to `MAX_TABLE_LABELS` labels, a heat map for more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SHADES = 9  # shading levels of a cell, by its share of the row
MAX_TABLE_LABELS = 12  # a larger table is unreadable
MAX_HEADER_CHARACTERS = 12  # labels that are longer are numbered in the column headers
MAX_CONFUSED_PAIRS = 12
MAX_HEATMAP_CELLS = 5000  # the cells with the most texts


@dataclass(frozen=True)
class ConfusionCell:
    """A cell of the table: texts of one true label with one predicted label."""

    count: int
    shade: int  # 0 to `_SHADES`
    correct: bool


@dataclass(frozen=True)
class LabelRow:
    """A row of the table: the texts of one true label."""

    label: str
    cells: list[ConfusionCell]
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class HeatmapCell:
    """A nonempty cell of the heat map."""

    x: int  # index of the predicted label
    y: int  # index of the true label
    count: int
    shade: int  # 1 to `_SHADES`
    correct: bool


@dataclass(frozen=True)
class ConfusionMatrix:
    """Rows are true labels, columns predicted labels.

    `confused_pairs` are (true label, predicted label, count), the most frequent first.
    """

    labels: Sequence[str]
    rows: list[LabelRow]
    confused_pairs: list[tuple[str, str, int]]

    @classmethod
    def from_metrics(cls, labels: Sequence[str], metrics: Mapping[str, Any]) -> "ConfusionMatrix":
        """Build the matrix from the metrics of one split in a job's summary."""
        matrix = metrics["confusion_matrix"]
        rows = [
            LabelRow(
                label=label,
                cells=[
                    ConfusionCell(count, round(_SHADES * count / max(1, sum(counts))), i == j)
                    for j, count in enumerate(counts)
                ],
                precision=metrics["per_class"][label]["precision"],
                recall=metrics["per_class"][label]["recall"],
                f1=metrics["per_class"][label]["f1"],
                support=sum(counts),
            )
            for i, (label, counts) in enumerate(zip(labels, matrix, strict=True))
        ]
        pairs = [
            (row.label, labels[j], cell.count)
            for row in rows
            for j, cell in enumerate(row.cells)
            if cell.count and not cell.correct
        ]
        pairs.sort(key=lambda pair: -pair[2])
        return cls(labels, rows, pairs[:MAX_CONFUSED_PAIRS])

    @property
    def fits_table(self) -> bool:
        """Whether the matrix is shown as a table."""
        return len(self.labels) <= MAX_TABLE_LABELS

    @property
    def has_numbered_columns(self) -> bool:
        """Whether column headers are label numbers, because some label is too long."""
        return max(map(len, self.labels)) > MAX_HEADER_CHARACTERS

    @property
    def total(self) -> int:
        """The number of texts in the split."""
        return sum(row.support for row in self.rows)

    @property
    def incorrect(self) -> int:
        """The number of misclassified texts."""
        return sum(cell.count for row in self.rows for cell in row.cells if not cell.correct)

    @property
    def heatmap_cells(self) -> list[HeatmapCell]:
        """The nonempty cells, those with the most texts first."""
        cells = [
            HeatmapCell(x, y, cell.count, max(1, cell.shade), cell.correct)
            for y, row in enumerate(self.rows)
            for x, cell in enumerate(row.cells)
            if cell.count
        ]
        cells.sort(key=lambda cell: -cell.count)
        return cells[:MAX_HEATMAP_CELLS]
