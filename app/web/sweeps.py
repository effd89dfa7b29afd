"""The list of sweeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.charts.formatting import field_labels, format_score
from app.http.dependencies import DatabaseDep
from app.http.pagination import decode_cursor, split_page
from app.sweeps import repository, scheduler, strategies
from app.sweeps.search_space import SearchSpace
from app.sweeps.snapshot import FINAL_TRIAL_STATES
from app.sweeps.states import SweepState
from app.sweeps.tables import Sweep
from app.sweeps.views import count_planned_trials
from app.web import formats
from app.web.formats import id_suffix
from app.web.page import BlankAsNone, ListPageQuery, render_template
from lora_core.specs.train import TrainSpec
from lora_core.tasks.metric_info import METRICS

PAGE_SIZE = 20

router = APIRouter(include_in_schema=False)


class SweepListQuery(ListPageQuery):
    """The filters of the list of sweeps."""

    state: Annotated[SweepState | None, BlankAsNone] = None


@dataclass(frozen=True)
class SweepProgress:
    """The progress of a sweep.

    For strategies that propose trials as they go, `trials` includes those still to come.
    """

    trials: int
    finished: int
    failed: int
    fraction: float  # of all steps


@dataclass(frozen=True)
class SweepRow:
    """A row of the list."""

    sweep: Sweep
    progress: SweepProgress
    best: float | None  # the objective on validation

    @property
    def name(self) -> str:
        return sweep_name(self.sweep)

    @property
    def data(self) -> str:
        return formats.data_source_name(shared_job_spec(self.sweep))

    @property
    def varied_fields(self) -> str:
        return " × ".join(field_labels(SearchSpace.from_pairs(self.sweep.space).fields).values())  # noqa: RUF001

    @property
    def objective(self) -> str:
        return METRICS[self.sweep.objective].label

    @property
    def best_score(self) -> str | None:
        """The best objective so far, formatted."""
        return None if self.best is None else format_score(self.sweep.objective, self.best)


@router.get("/sweeps", dependencies=[require_scope("jobs:read")])
def sweeps_page(
    request: Request, database: DatabaseDep, query: Annotated[SweepListQuery, Query()]
) -> HTMLResponse:
    """List sweeps, newest first. Without any sweep, show how to start one."""
    with database.read() as session:
        found = repository.list_sweeps(
            session, after=decode_cursor(query.after), limit=PAGE_SIZE + 1, state=query.state
        )
        sweeps, next_cursor = split_page(found, PAGE_SIZE)
        rows = _rows(session, sweeps)
        no_sweeps = not rows and not repository.list_sweeps(session, after=None, limit=1)
    return render_template(
        request,
        "sweeps.html",
        no_sweeps=no_sweeps,
        rows=rows,
        query=query,
        next=next_cursor,
        states=list(SweepState),
    )


def sweep_name(sweep: Sweep) -> str:
    """Return the sweep's name, or a name made from the end of its id."""
    return sweep.name or f"sweep {id_suffix(sweep.id)}"


def shared_job_spec(sweep: Sweep) -> dict[str, Any]:
    """Return the settings that all trials share, with defaults filled in."""
    return TrainSpec.model_validate(sweep.job).model_dump(mode="json")


def list_sweep_progress(session: Session, sweeps: Sequence[Sweep]) -> list[SweepProgress]:
    """Return the progress of each sweep, in the same order."""
    ids = [sweep.id for sweep in sweeps]
    counts = repository.count_trials_by_state(session, ids)
    finished = repository.count_finished_by_rung(session, ids)
    return [_progress(sweep, counts[sweep.id], finished[sweep.id]) for sweep in sweeps]


def _progress(sweep: Sweep, counts: dict[str, int], finished: dict[int, int]) -> SweepProgress:
    strategy = scheduler.STRATEGY_ADAPTER.validate_python(sweep.strategy)
    trials = count_planned_trials(sweep, counts)
    is_finished = sweep.state == SweepState.FINISHED
    return SweepProgress(
        trials=trials,
        finished=sum(counts.get(state, 0) for state in FINAL_TRIAL_STATES),
        failed=counts.get("failed", 0),
        fraction=1.0
        if is_finished
        else strategies.sweep_completed_fraction(strategy, trials, finished),
    )


def _rows(session: Session, sweeps: Sequence[Sweep]) -> list[SweepRow]:
    return [
        SweepRow(
            sweep,
            sweep_progress,
            repository.best_objective(session, sweep, rung=_last_rung(sweep)),
        )
        for sweep, sweep_progress in zip(sweeps, list_sweep_progress(session, sweeps), strict=True)
    ]


def _last_rung(sweep: Sweep) -> int:
    """Return the rung at which trials run all of their steps."""
    strategy = scheduler.STRATEGY_ADAPTER.validate_python(sweep.strategy)
    return len(strategies.rung_budgets(strategy)) - 1
