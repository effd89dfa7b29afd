"""How the winner, those as good, and the cheapest of them stand out, in every picture alike."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from app.sweeps.board import Cell
from app.sweeps.verdict import Verdict


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
