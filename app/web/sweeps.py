"""The list of sweeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from app.auth.middleware import requires
from app.charts.fields import OBJECTIVES, labels, score
from app.http.dependencies import DatabaseDep
from app.http.pagination import cut, decode
from app.sweeps import add_trials, progress, repository, strategies
from app.sweeps.search_space import Space
from app.sweeps.snapshot import ENDED
from app.sweeps.states import SweepState
from app.sweeps.tables import Sweep
from app.web import display_names, page
from app.web.formats import short
from app.web.page import Filled, render
from lora_core.specs.train import TrainSpec

ROWS = 20

router = APIRouter(include_in_schema=False)


class Wanted(page.Wanted):
    """What the list is narrowed to."""

    state: Annotated[SweepState | None, Filled] = None


@dataclass(frozen=True)
class Progress:
    """How far a sweep is. Of a search that thinks of its cells as it goes, also those to come."""

    cells: int
    ended: int
    failed: int
    share: float  # of all steps


@dataclass(frozen=True)
class Row:
    """A sweep as the list shows it."""

    sweep: Sweep
    progress: Progress
    best: float | None

    @property
    def name(self) -> str:
        return name(self.sweep)

    @property
    def data(self) -> str:
        return display_names.data(job(self.sweep))

    @property
    def over(self) -> str:
        return " × ".join(labels(Space.of(self.sweep.space).fields).values())  # noqa: RUF001

    @property
    def objective(self) -> str:
        return OBJECTIVES[self.sweep.objective]

    @property
    def figure(self) -> str | None:
        """The best so far, on validation."""
        return None if self.best is None else score(self.sweep.objective, self.best)


@router.get("/sweeps", dependencies=[requires("jobs:read")])
def sweeps(
    request: Request, database: DatabaseDep, wanted: Annotated[Wanted, Query()]
) -> HTMLResponse:
    """Sweeps, the newest first; before the first, how to start one."""
    with database.read() as session:
        found = repository.page(
            session, after=decode(wanted.after), limit=ROWS + 1, state=wanted.state
        )
        shown, following = cut(found, ROWS)
        rows = _rows(session, shown)
        nothing = not rows and not repository.page(session, after=None, limit=1)
    return render(
        request,
        "sweeps.html",
        nothing=nothing,
        rows=rows,
        wanted=wanted,
        next=following,
        states=list(SweepState),
    )


def name(sweep: Sweep) -> str:
    """As its maker named it, or the end of its id."""
    return sweep.name or f"sweep {short(sweep.id)}"


def job(sweep: Sweep) -> dict[str, Any]:
    """What its cells share, all defaults filled in."""
    return TrainSpec.model_validate(sweep.job).model_dump(mode="json")


def progress_of(session: Session, sweeps: Sequence[Sweep]) -> list[Progress]:
    """Of each."""
    ids = [sweep.id for sweep in sweeps]
    counts, ended = progress.counts(session, ids), progress.ended(session, ids)
    return [_progress(sweep, counts[sweep.id], ended[sweep.id]) for sweep in sweeps]


def _progress(sweep: Sweep, counts: dict[str, int], ended: dict[int, int]) -> Progress:
    strategy = add_trials.STRATEGY.validate_python(sweep.strategy)
    cells = max(sum(counts.values()), sweep.strategy.get("cells") or 0)
    finished = sweep.state == SweepState.FINISHED
    return Progress(
        cells=cells,
        ended=sum(counts.get(state, 0) for state in ENDED),
        failed=counts.get("failed", 0),
        share=1.0 if finished else progress.share(strategy, cells, ended),
    )


def _rows(session: Session, shown: Sequence[Sweep]) -> list[Row]:
    return [
        Row(sweep, its, progress.best(session, sweep, rung=_last_rung(sweep)))
        for sweep, its in zip(shown, progress_of(session, shown), strict=True)
    ]


def _last_rung(sweep: Sweep) -> int:
    """Where cells run whole."""
    return len(strategies.shares(add_trials.STRATEGY.validate_python(sweep.strategy))) - 1
