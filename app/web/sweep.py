"""The cells of a sweep over two of its fields, as they fill up: what stands at each place."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from app.auth.middleware import requires
from app.charts import figures, report, style
from app.charts.fields import Axis, labels, percent, score, settings, varied
from app.charts.figures import MAX_HEATMAP_VALUES, squares_over, two
from app.http.dependencies import DatabaseDep
from app.sweeps import progress, repository, results, search_space
from app.sweeps.routes import SweepId
from app.sweeps.search_space import Space
from app.sweeps.snapshot import ENDED, Board, Cell
from app.sweeps.states import CellState, SweepState
from app.sweeps.tables import Sweep
from app.sweeps.winner import judge
from app.web import choices
from app.web.page import Filled, render
from app.web.sweeps import Progress, job, name, progress_of

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
def sweep_grid(board: Board, x: str | None, y: str | None) -> Grid | None:
    """Over the fields x and y if they are there, else over those of the map.

    None where no field varies, or where all take too many values.
    """
    known = {axis.field: axis for axis in axes(board)}
    if not known:
        return None
    if len(known) == 1:
        (only,) = known.values()
        return Grid(only, None, _squares(board, only, None))
    across, down = two(list(known.values()))
    across, down = known.get(x or "", across), known.get(y or "", down)
    if across is down:
        down = next(axis for axis in known.values() if axis is not across)
    return Grid(across, down, _squares(board, across, down))


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


def _squares(board: Board, x: Axis, y: Axis | None) -> list[list[Square | None]]:
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


# MERGED app.web.sweep
# One sweep: how far it is, what came out so far, its cells.

ROWS = 100

router = APIRouter(include_in_schema=False)


class Look(BaseModel):
    """What the page shows of the cells: the fields of the grid, and which rows of the table."""

    x: Annotated[str | None, Filled] = None
    y: Annotated[str | None, Filled] = None
    state: Annotated[CellState | None, Filled] = None
    page: int = Field(default=1, ge=1, le=1000)

    def but(self, **changes: Any) -> str:
        """The query of the page that differs in this."""
        changed = self.model_dump(mode="json", exclude_defaults=True) | changes
        return urlencode({name: value for name, value in changed.items() if value})


@dataclass(frozen=True)
class Rows:
    """A part of the table of all cells."""

    table: report.Table
    jobs: Sequence[str | None]  # of each row
    first: int  # from 1
    total: int

    @property
    def last(self) -> int:
        return self.first + len(self.jobs) - 1


@dataclass(frozen=True)
class Running:
    """A cell that is on a device."""

    number: int
    job_id: str
    settings: str
    share: float | None  # of its steps


@router.get("/sweeps/{sweep_id}", dependencies=[requires("jobs:read")])
def sweep(
    request: Request, sweep_id: SweepId, database: DatabaseDep, look: Annotated[Look, Query()]
) -> HTMLResponse:
    """Where it is, who wins and why, the grid, the pictures, and every cell."""
    with database.read() as session:
        found = repository.get(session, sweep_id)
        board = results.board(session, found)
        (far,) = progress_of(session, [found])
        running = _running(session, found, board)
        models = choices.models(session)
    verdict = judge(board)
    grid = sweep_grid(board, look.x, look.y)
    return render(
        request,
        "sweep.html",
        sweep=found,
        name=name(found),
        job=job(found),
        about=_about(found),
        counts=_counts(board),
        progress=far,
        running=running,
        seconds_left=_seconds_left(found, board, far, len(running)),
        board=board,
        verdict=verdict,
        standing=report.standing(board),
        findings=report.findings(board, verdict),
        choices=report.choices(board, verdict),
        judged_by=style.objective(board),
        grid=grid,
        several=grid is not None and grid.several,
        with_map=grid is None or grid.fields != squares_over(board),  # else the same twice
        axes=axes(board),
        tiles=[] if grid else tiles(board),
        rows=_rows(board, look),
        look=look,
        drawn=figures.version_of(board),
        models=models,
    )


def _about(sweep: Sweep) -> list[tuple[str, str]]:
    """What varies, and over what."""
    space = Space.of(sweep.space)
    told = space.model_dump(mode="json")["dimensions"]
    return [
        (label, search_space.written(field, told[field]).replace(",", ", "))
        for field, label in labels(space.fields).items()
    ]


def _counts(board: Board) -> dict[CellState, int]:
    states = [cell.state for cell in board.cells]
    return {state: states.count(state) for state in reversed(CellState) if state in states}


def _running(session: Session, sweep: Sweep, board: Board) -> list[Running]:
    cells = {cell.number: cell for cell in board.cells}
    return [
        Running(
            number=each.number,
            job_id=str(each.job_id),
            settings=", ".join(settings(board, cells[each.number])),
            share=each.step / each.total_steps if each.total_steps else None,
        )
        for each in progress.running(session, sweep.id)
        if each.number in cells
    ]


def _seconds_left(sweep: Sweep, board: Board, far: Progress, running: int) -> float | None:
    """With what the cells took so far, and as many at a time as now. None while nobody can tell."""
    spent = sum(cell.seconds or 0.0 for cell in board.cells)
    if sweep.state != SweepState.RUNNING or not (spent and far.share and running):
        return None
    return spent / far.share * (1 - far.share) / running


def _rows(board: Board, look: Look) -> Rows:
    ordered = report.ordered(board)
    wanted = [cell for cell in ordered if look.state in (None, cell.state)]
    first = ROWS * (look.page - 1)
    shown: list[Cell] = wanted[first : first + ROWS]
    table = report.cells(board, judge(board), shown)
    return Rows(table, [cell.job_id for cell in shown], first + 1, len(wanted))
