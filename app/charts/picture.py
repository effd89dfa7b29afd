"""What every picture of a sweep shares.

They show the cells that ran whole and whose objective is known. Colours of text, grids and scales
come from the page, which is light or dark.
"""

from dataclasses import dataclass
from html import escape
from typing import Any

from app.charts.fields import OBJECTIVES, score, settings
from app.sweeps.board import Board, Cell

LONGEST = 28  # characters
LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}


@dataclass(frozen=True)
class Picture:
    """A Plotly figure, and what it shows in words."""

    title: str
    caption: str
    alt: str
    figure: Any  # plotly.graph_objects.Figure
    wide: bool = False  # needs the breadth of the page
    map: bool = False  # the objective over two fields


def objective(board: Board) -> str:
    """What the pictures are about: `validation accuracy`."""
    return f"validation {OBJECTIVES[board.objective]}"


def scored(board: Board, cell: Cell) -> str:
    """The objective of a cell: `90.3 %`."""
    value = board.score(cell)
    return "unknown" if value is None else score(board.objective, value)


def plain(text: str) -> str:
    """A text on an axis, cut where it is long; escaped, since Plotly reads `<b>` and the like."""
    return escape(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…", quote=False)


def told(board: Board, cell: Cell) -> str:
    """A cell under the pointer: its number, objective and settings."""
    chosen = [escape(each, quote=False) for each in settings(board, cell)]
    return "<br>".join([f"<b>cell {cell.number}: {scored(board, cell)}</b>", *chosen])


def tick_format(board: Board) -> str:
    """How d3-format writes the objective on an axis."""
    return ".2f" if board.objective == "loss" else ".1%"


def colours(board: Board) -> dict[str, Any]:
    """The scale of the objective. It is strongest at the best, which of the loss is the lowest."""
    return {"reversescale": board.objective == "loss", "showscale": False}
