"""What every picture of a sweep shares.

They show the cells that ran whole and whose objective is known. Colours of text, grids and scales
come from the page, which is light or dark.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from app.charts.fields import OBJECTIVES, score, settings
from app.sweeps.snapshot import Board, Cell
from app.sweeps.winner import Verdict

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


# MERGED app.charts.style
# How the winner, those as good, and the cheapest of them stand out, in every picture alike.


@dataclass(frozen=True)
class Mark:
    """Told apart by shape and size too, not by colour alone; seen on white and on black."""

    name: str
    symbol: str
    size: int  # pixels
    width: float  # of a line, pixels
    colour: str


OTHERS = Mark("other cells", "circle", 7, 0.7, "#8b95a5")
NEAR = Mark("as good", "circle", 10, 1.5, "#3f87c9")
CHEAPEST = Mark("cheapest as good", "diamond", 13, 3, "#1b9e77")
WINNER = Mark("winner", "star", 16, 3, "#e07b1a")


def mark(cell: Cell, verdict: Verdict) -> Mark:
    """What a cell is beside the winner; a winner that is also the cheapest is the winner."""
    if cell.number == verdict.winner:
        return WINNER
    if cell.number == verdict.cheapest:
        return CHEAPEST
    return NEAR if cell.number in verdict.near else OTHERS


def groups(cells: Sequence[Cell], verdict: Verdict) -> Iterator[tuple[Mark, list[Cell]]]:
    """The cells by mark, the winner last so that it lies on top; groups of none are left out."""
    for each in (OTHERS, NEAR, CHEAPEST, WINNER):
        if marked := [cell for cell in cells if mark(cell, verdict) is each]:
            yield each, marked
