"""One sweep: how far it is, what came out so far, its cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from app.auth.middleware import requires
from app.charts import figures, report, style
from app.charts.fields import labels, settings
from app.charts.figures import squares_over
from app.http.dependencies import DatabaseDep
from app.sweeps import progress, repository, results, search_space
from app.sweeps.routes import SweepId
from app.sweeps.search_space import Space
from app.sweeps.snapshot import Board, Cell
from app.sweeps.states import CellState, SweepState
from app.sweeps.tables import Sweep
from app.sweeps.winner import judge
from app.web import offered, sweep_grid
from app.web.lists import Filled
from app.web.page import render
from app.web.sweeps import Progress, job, name, progress_of

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
        models = offered.models(session)
    verdict = judge(board)
    grid = sweep_grid.grid(board, look.x, look.y)
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
        axes=sweep_grid.axes(board),
        tiles=[] if grid else sweep_grid.tiles(board),
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
