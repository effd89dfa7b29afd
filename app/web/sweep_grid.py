"""The cells of a sweep over two of its fields, as they fill up: what stands at each place."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from app.charts.fields import Axis, percent, score, settings, varied
from app.charts.figures import MAX_HEATMAP_VALUES, two
from app.sweeps.snapshot import ENDED, Board, Cell

LEVELS = 8  # of shading, from the worst to the best
MOST_TILES = 400  # cells that are shown one by one

# Of several cells at one place, what is told first.
ORDER = ("running", "queued", "waiting", "failed", "cancelled", "succeeded")


@dataclass(frozen=True)
class Square:
    """The cells at one place, and the best of them."""

    cell: Cell  # the best; the first while no figure is known
    cells: int
    ended: int
    state: str  # of those that have not ended, if there are any
    score: str  # empty: unknown
    part: str  # of the steps of the best, where it did not run whole
    level: int | None  # of shading
    told: str  # the settings of the best


@dataclass(frozen=True)
class Grid:
    """Squares by row and column; None where there is no cell."""

    x: Axis
    y: Axis | None  # None: one field varies
    rows: Sequence[Sequence[Square | None]]

    @property
    def fields(self) -> set[str]:
        """Those that it is drawn over."""
        return {axis.field for axis in (self.x, self.y) if axis}

    @property
    def several(self) -> bool:
        """Whether more than one cell stands at some place: fields vary that are not shown."""
        return any(square and square.cells > 1 for row in self.rows for square in row)


@lru_cache(maxsize=8)
def axes(board: Board) -> list[Axis]:
    """The fields that can be told apart in a table."""
    return [axis for axis in varied(board, board.cells) if len(axis.texts) <= MAX_HEATMAP_VALUES]


@lru_cache(maxsize=8)
def grid(board: Board, x: str | None, y: str | None) -> Grid | None:
    """Over the fields x and y if they are there, else over those of the map.

    None where no field varies, or where all take too many values.
    """
    known = {axis.field: axis for axis in axes(board)}
    if not known:
        return None
    if len(known) == 1:
        (only,) = known.values()
        return Grid(only, None, _rows(board, only, None))
    across, down = two(list(known.values()))
    across, down = known.get(x or "", across), known.get(y or "", down)
    if across is down:
        down = next(axis for axis in known.values() if axis is not across)
    return Grid(across, down, _rows(board, across, down))


def tiles(board: Board) -> list[Square]:
    """The cells one by one; none where they are too many to be seen."""
    if len(board.cells) > MOST_TILES:
        return []
    scale = _Scale(board)
    return [_square(board, [cell], scale) for cell in board.cells]


class _Scale:
    """From a score to a level, 1 to `LEVELS`; of the loss the lowest is the best."""

    def __init__(self, board: Board) -> None:
        self.sign = -1 if board.objective == "loss" else 1
        known = [value for cell in board.cells if (value := board.score(cell)) is not None]
        self.low, self.high = min(known, default=0.0), max(known, default=0.0)

    def level(self, value: float) -> int:
        span = self.high - self.low
        share = (value - self.low) / span if span else 1.0
        return 1 + round((LEVELS - 1) * (share if self.sign > 0 else 1 - share))


def _rows(board: Board, x: Axis, y: Axis | None) -> list[list[Square | None]]:
    there: defaultdict[tuple[int, int], list[Cell]] = defaultdict(list)
    for cell in board.cells:
        there[y.position(cell) if y else 0, x.position(cell)].append(cell)
    scale = _Scale(board)
    places = [[(row, at) for at in range(len(x.texts))] for row in range(len(y.texts) if y else 1)]
    return [
        [_square(board, there[place], scale) if place in there else None for place in row]
        for row in places
    ]


def _square(board: Board, cells: Sequence[Cell], scale: _Scale) -> Square:
    known = [(value, cell) for cell in cells if (value := board.score(cell)) is not None]
    value, best = None, cells[0]
    if known:  # those that ran the furthest are compared; of equal ones the first is taken
        value, best = max(known, key=lambda each: (each[1].share, scale.sign * each[0]))
    states = {cell.state for cell in cells}
    return Square(
        cell=best,
        cells=len(cells),
        ended=sum(cell.state in ENDED for cell in cells),
        state=next(state for state in ORDER if state in states),
        score="" if value is None else score(board.objective, value),
        part="" if value is None or best.share == 1.0 else percent(best.share),
        level=None if value is None else scale.level(value),
        told=", ".join(settings(board, best)),
    )
