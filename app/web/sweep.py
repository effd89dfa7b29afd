"""The page of one sweep, and the form that extends it.

The page shows progress, winner, a grid of trials by setting, charts, and all trials.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse

from app.auth.middleware import require_scope
from app.charts import figures, style, sweep_report
from app.charts.figures import MAX_HEATMAP_VALUES, choose_map_axes, final_heatmap_fields
from app.charts.formatting import (
    Axis,
    field_labels,
    format_percent,
    format_score,
    format_trial_settings,
    varied_axes,
)
from app.database.base import JsonObject
from app.http.dependencies import CallerDep, DatabaseDep, SettingsDep, StoreDep
from app.jobs.pretrained_bases import build_base_resolver
from app.jobs.resolve import JobResolver
from app.sweeps import planning, repository, results, search_space, service
from app.sweeps.routes import SweepId
from app.sweeps.schemas import SweepExtend
from app.sweeps.search_space import SearchSpace
from app.sweeps.snapshot import (
    FINAL_TRIAL_STATES,
    SweepSnapshot,
    TrialSnapshot,
    select_winner_and_cheapest,
)
from app.sweeps.states import SweepState, TrialState
from app.sweeps.tables import Sweep
from app.sweeps.trials import RESOLVE_ERRORS
from app.web import form_options, sweep_form
from app.web.curl import curl_command
from app.web.page import BlankAsNone, render_template
from app.web.sweeps import SweepProgress, list_sweep_progress, shared_job_spec, sweep_name
from lora_core.tasks.metric_info import METRICS

_SCORE_LEVELS = 8  # shading levels, from the worst score to the best
_MAX_TILES = 400  # trials shown one by one
TABLE_PAGE_SIZE = 100

# The state shown for a grid cell with several trials: the first of these that occurs.
_STATE_PRIORITY = ("running", "queued", "waiting", "failed", "cancelled", "succeeded")

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class SweepGridCell:
    """The trials with the same two settings, and the best of them."""

    trial: TrialSnapshot  # the best one; the first one while no score is known
    trial_count: int
    finished: int
    state: str  # the first by `_STATE_PRIORITY`
    score: str  # empty: unknown
    budget: str  # share of the steps that the best trial ran; empty: all of them
    level: int | None  # shading, 1 to `_SCORE_LEVELS`
    settings: str  # of the best trial


@dataclass(frozen=True)
class SweepGrid:
    """Trials by row and column; None where there is no trial."""

    x: Axis
    y: Axis | None  # None: only one field varies
    rows: Sequence[Sequence[SweepGridCell | None]]

    @property
    def fields(self) -> set[str]:
        """The fields of the two axes."""
        return {axis.field for axis in (self.x, self.y) if axis}

    @property
    def has_shared_cells(self) -> bool:
        """Whether some cell holds several trials, because fields outside the grid vary."""
        return any(cell and cell.trial_count > 1 for row in self.rows for cell in row)


@lru_cache(maxsize=8)
def list_heatmap_axes(snapshot: SweepSnapshot) -> list[Axis]:
    """Return the varying fields with few enough values for a table."""
    return [
        axis
        for axis in varied_axes(snapshot, snapshot.trials)
        if len(axis.tick_labels) <= MAX_HEATMAP_VALUES
    ]


@lru_cache(maxsize=8)
def build_grid(snapshot: SweepSnapshot, x: str | None, y: str | None) -> SweepGrid | None:
    """Build the grid over the fields x and y if they vary, else over those of the heat map.

    Returns None if no field varies, or if every field takes too many values.
    """
    axes = {axis.field: axis for axis in list_heatmap_axes(snapshot)}
    if not axes:
        return None
    if len(axes) == 1:
        (axis,) = axes.values()
        return SweepGrid(axis, None, _grid_rows(snapshot, axis, None))
    x_axis, y_axis = choose_map_axes(list(axes.values()))
    x_axis, y_axis = axes.get(x or "", x_axis), axes.get(y or "", y_axis)
    if x_axis is y_axis:
        y_axis = next(axis for axis in axes.values() if axis is not x_axis)
    return SweepGrid(x_axis, y_axis, _grid_rows(snapshot, x_axis, y_axis))


def build_trial_tiles(snapshot: SweepSnapshot) -> list[SweepGridCell]:
    """Return one cell per trial; none if there are more than `_MAX_TILES`."""
    if len(snapshot.trials) > _MAX_TILES:
        return []
    scale = _ScoreScale(snapshot)
    return [_grid_cell(snapshot, [trial], scale) for trial in snapshot.trials]


class _ScoreScale:
    """Maps a score to a level from 1 (worst) to `_SCORE_LEVELS` (best)."""

    def __init__(self, snapshot: SweepSnapshot) -> None:
        self.sign = METRICS[snapshot.objective].sign()
        scores = [
            score
            for trial in snapshot.trials
            if (score := snapshot.objective_value(trial)) is not None
        ]
        self.low, self.high = min(scores, default=0.0), max(scores, default=0.0)

    def level(self, score: float) -> int:
        span = self.high - self.low
        fraction = (score - self.low) / span if span else 1.0
        return 1 + round((_SCORE_LEVELS - 1) * (fraction if self.sign > 0 else 1 - fraction))


def _grid_rows(
    snapshot: SweepSnapshot, x: Axis, y: Axis | None
) -> list[list[SweepGridCell | None]]:
    trials: defaultdict[tuple[int, int], list[TrialSnapshot]] = defaultdict(list)
    for trial in snapshot.trials:
        trials[y.value_index(trial) if y else 0, x.value_index(trial)].append(trial)
    scale = _ScoreScale(snapshot)
    return [
        [
            _grid_cell(snapshot, trials[row, column], scale) if (row, column) in trials else None
            for column in range(len(x.tick_labels))
        ]
        for row in range(len(y.tick_labels) if y else 1)
    ]


def _grid_cell(
    snapshot: SweepSnapshot, trials: Sequence[TrialSnapshot], scale: _ScoreScale
) -> SweepGridCell:
    scored = [
        (score, trial) for trial in trials if (score := snapshot.objective_value(trial)) is not None
    ]
    score, best = None, trials[0]
    if scored:  # compare the trials with the largest budget; ties go to the first one
        score, best = max(scored, key=lambda item: (item[1].budget, scale.sign * item[0]))
    states = {trial.state for trial in trials}
    return SweepGridCell(
        trial=best,
        trial_count=len(trials),
        finished=sum(trial.state in FINAL_TRIAL_STATES for trial in trials),
        state=next(state for state in _STATE_PRIORITY if state in states),
        score="" if score is None else format_score(snapshot.objective, score),
        budget="" if score is None or best.budget == 1.0 else format_percent(best.budget),
        level=None if score is None else scale.level(score),
        settings=", ".join(format_trial_settings(snapshot, best)),
    )


class SweepPageQuery(BaseModel):
    """The query string of the page: the axes of the grid, and the page of the trial table."""

    x: Annotated[str | None, BlankAsNone] = None
    y: Annotated[str | None, BlankAsNone] = None
    state: Annotated[TrialState | None, BlankAsNone] = None
    page: int = Field(default=1, ge=1, le=1000)

    def query_string_with(self, **changes: Any) -> str:
        """Return the query string with some parameters changed."""
        parameters = self.model_dump(mode="json", exclude_defaults=True) | changes
        return urlencode({name: value for name, value in parameters.items() if value})


@dataclass(frozen=True)
class TrialTablePage:
    """One page of the table of all trials."""

    table: sweep_report.ReportTable
    job_ids: Sequence[str | None]  # by row
    first: int  # from 1
    total: int

    @property
    def last(self) -> int:
        return self.first + len(self.job_ids) - 1


@dataclass(frozen=True)
class RunningTrialRow:
    """A trial that is running."""

    number: int
    job_id: str
    settings: str
    progress: float | None  # share of its steps


@router.get("/sweeps/{sweep_id}", dependencies=[require_scope("jobs:read")])
def sweep_page(
    request: Request,
    sweep_id: SweepId,
    database: DatabaseDep,
    caller: CallerDep,
    query: Annotated[SweepPageQuery, Query()],
) -> HTMLResponse:
    """Show a sweep."""
    with database.read() as session:
        sweep = repository.get_sweep(session, sweep_id)
        snapshot = results.read_cached_snapshot(session, sweep)
        (sweep_progress,) = list_sweep_progress(session, [sweep])
        running = _running_trials(session, sweep, snapshot)
        model_names = form_options.model_names(session, caller)
    selection = select_winner_and_cheapest(snapshot)
    grid = build_grid(snapshot, query.x, query.y)
    return render_template(
        request,
        "sweep.html",
        sweep=sweep,
        name=sweep_name(sweep),
        job=shared_job_spec(sweep),
        search_space=_search_space(sweep),
        state_counts=_state_counts(snapshot),
        progress=sweep_progress,
        running=running,
        seconds_left=_seconds_left(sweep, snapshot, sweep_progress, len(running)),
        trial_count=len(snapshot.trials),
        has_partial_trials=not all(trial.succeeded_at_full_budget for trial in snapshot.trials),
        winner=selection.winner if selection else None,
        cheapest=selection.cheapest if selection else None,
        progress_sentence=sweep_report.progress_sentence(snapshot),
        findings=sweep_report.describe_results(snapshot, selection),
        winner_and_cheapest_table=sweep_report.winner_and_cheapest_table(snapshot, selection),
        objective=style.objective_label(snapshot),
        grid=grid,
        # The heat map among the charts would repeat a grid over the same fields.
        with_heatmap=grid is None or grid.fields != final_heatmap_fields(snapshot),
        axes=list_heatmap_axes(snapshot),
        tiles=[] if grid else build_trial_tiles(snapshot),
        trials=_trial_table(snapshot, query),
        query=query,
        charts_digest=figures.charts_digest(snapshot),
        model_names=model_names,
    )


def _search_space(sweep: Sweep) -> list[tuple[str, str]]:
    """Return (field, values) of the search space, formatted."""
    space = SearchSpace.from_pairs(sweep.space)
    dimensions = space.model_dump(mode="json")["dimensions"]
    return [
        (label, search_space.format_values_or_range(field, dimensions[field]).replace(",", ", "))
        for field, label in field_labels(space.fields).items()
    ]


def _state_counts(snapshot: SweepSnapshot) -> dict[TrialState, int]:
    states = [trial.state for trial in snapshot.trials]
    return {state: states.count(state) for state in reversed(TrialState) if state in states}


def _running_trials(
    session: Session, sweep: Sweep, snapshot: SweepSnapshot
) -> list[RunningTrialRow]:
    trials = {trial.number: trial for trial in snapshot.trials}
    return [
        RunningTrialRow(
            number=running.number,
            job_id=str(running.job_id),
            settings=", ".join(format_trial_settings(snapshot, trials[running.number])),
            progress=running.step / running.total_steps if running.total_steps else None,
        )
        for running in repository.list_running_trials(session, sweep.id)
        if running.number in trials
    ]


def _seconds_left(
    sweep: Sweep, snapshot: SweepSnapshot, sweep_progress: SweepProgress, running: int
) -> float | None:
    """Estimate from the time spent so far and the number of trials that run at once.

    Returns None while nothing is running or no step is done.
    """
    spent = sum(trial.seconds or 0.0 for trial in snapshot.trials)
    done = sweep_progress.fraction
    if sweep.state != SweepState.RUNNING or not (spent and done and running):
        return None
    return spent / done * (1 - done) / running


def _trial_table(snapshot: SweepSnapshot, query: SweepPageQuery) -> TrialTablePage:
    trials = [
        trial
        for trial in sweep_report.trials_in_display_order(snapshot)
        if query.state in (None, trial.state)
    ]
    first = TABLE_PAGE_SIZE * (query.page - 1)
    rows: list[TrialSnapshot] = trials[first : first + TABLE_PAGE_SIZE]
    table = sweep_report.trial_table(snapshot, select_winner_and_cheapest(snapshot), rows)
    return TrialTablePage(table, [trial.job_id for trial in rows], first + 1, len(trials))


# -- The form that adds values to the search space, or trials to a sampled search -----------------


@router.get(
    "/sweeps/{sweep_id}/extend",
    dependencies=[require_scope("jobs:read"), require_scope("jobs:write")],
)
def sweep_extension_page(
    request: Request,
    sweep_id: SweepId,
    database: DatabaseDep,
    store: StoreDep,
    settings: SettingsDep,
) -> HTMLResponse:
    """Show the form, and how many trials it would add. The query string holds the input."""
    values = dict(request.query_params)
    with database.read() as session:
        sweep = repository.get_sweep(session, sweep_id)
        trial_count = len(repository.list_trial_settings(session, sweep_id))
    space = SearchSpace.from_pairs(sweep.space)
    body, errors = _parse_extension(values, space.fields)
    added = None
    if body and not errors:
        find = build_base_resolver(database, store, settings)
        try:
            extension = SweepExtend.model_validate(body)
            plan = service.plan_sweep_extension(
                database, sweep_id=sweep_id, body=extension, find_base=find
            )
            with database.read() as session:
                planning.resolve_trial_jobs(plan, JobResolver(session, settings))
            added = plan.trial_count
        except ValidationError as error:
            errors = sweep_form.validation_errors_by_input(error, SweepExtend)
        except RESOLVE_ERRORS as error:
            errors = {"": str(error)}
    dimensions = space.model_dump(mode="json")["dimensions"]
    return render_template(
        request,
        "extend_sweep.html",
        sweep=sweep,
        name=sweep_name(sweep),
        trial_count=trial_count,
        is_sampled=sweep.strategy.get("trials") is not None,
        fields=[
            (
                field,
                label,
                search_space.format_values_or_range(field, dimensions[field]).replace(",", ", "),
            )
            for field, label in field_labels(space.fields).items()
        ],
        values=values,
        body=body,
        errors=errors,
        added=added,
        curl=curl_command(request, "POST", f"/v1/sweeps/{sweep_id}/extend", body),
        command=sweep_form.build_sweep_extend_command(request, sweep_id, values, space.fields),
    )


def _parse_extension(
    values: dict[str, str], fields: tuple[str, ...]
) -> tuple[JsonObject, dict[str, str]]:
    """Return the request body, empty without input, and the errors by input."""
    space, errors = sweep_form.parse_space(values, fields)
    body: JsonObject = {"space": space} if space else {}
    if trial_count := values.get("trials", "").strip():
        body["trials"] = search_space.parse_json_or_text(trial_count)
    return body, errors
