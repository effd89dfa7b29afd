"""Which cells a sweep gets, and what they cost, before anything is stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

from sqlalchemy.orm import Session

from app.database.base import JsonObject
from app.jobs import estimate
from app.jobs.resolve import Draft, Drafter
from app.queue import heartbeats
from app.settings import Settings
from app.sweeps import search_space, strategies, trials
from app.sweeps.errors import NothingToExtend, TooManyCells
from app.sweeps.schemas import RungPlan, SweepCreate, SweepExtend, SweepPlan
from app.sweeps.search_space import Settings as Choice
from app.sweeps.search_space import Space
from app.sweeps.strategies import Grid, Strategy, Tpe
from app.sweeps.trials import Find, Pinned
from lora_core.specs.train import TrainSpec

MOST_TRIED = 1_000  # cells
WARM_SECONDS = 2.0  # between two cells in one process

Drafts = list[tuple[Choice, Draft]]


@dataclass(frozen=True)
class Laid:
    """Cells, as far as no transaction is needed."""

    over: Space
    strategy: Strategy
    choices: Sequence[Choice]
    specs: Sequence[TrainSpec]
    pinned: Pinned
    kept: int  # so many of them, in front; the rest is only tried
    # Of an extension: space, strategy and number of cells as they were.
    grown_from: tuple[list[Any], JsonObject, int] = ([], {}, 0)


def lay_out(body: SweepCreate, find: Find) -> Laid:
    """Called outside of a transaction, since `find` may ask the hub.

    Raises `UnknownField`, what a space and `strategies.first` raise, and `InvalidCells`.
    """
    over, strategy = body.over, body.strategy
    _check(body.job, over)
    first = strategies.first(strategy, over)
    tried = _tried(strategy, over)
    return _lay(body.job, over, strategy, [*first, *tried], find, Pinned(), kept=len(first))


def grow(  # noqa: PLR0913 - a sweep, and what is asked of it
    job: TrainSpec,
    *,
    over: Space,
    strategy: Strategy,
    pinned: Pinned,
    there: Sequence[Choice],
    body: SweepExtend,
    find: Find,
) -> Laid:
    """More cells for a sweep that has those `there`.

    Raises `NothingToExtend`, and what `lay_out` raises.
    """
    wider = search_space.wider(over, body.space or {})
    larger = _larger(strategy, body.cells)
    _check(job, wider)
    new = _new(larger, wider, there)
    if not new and larger == strategy:
        drawn = not isinstance(larger, Grid) and larger.cells is not None
        raise NothingToExtend(reason="say `cells`" if drawn else "all of them are there")
    tried = _tried(larger, wider)
    return _lay(job, wider, larger, [*new, *tried], find, pinned, kept=len(new))


def drafts(laid: Laid, drafter: Drafter) -> Drafts:
    """All cells, ready to run. Raises `InvalidCells` and what `Drafter.draft` raises."""
    outcomes: list[Draft | Exception] = []
    for spec in laid.specs:
        try:
            outcomes.append(laid.pinned.draft(drafter, trials.at_rung(spec, laid.strategy, 0)))
        except trials.REFUSALS as error:
            outcomes.append(error)
    trials.refuse(laid.choices, outcomes)
    made = (each for each in outcomes if isinstance(each, Draft))
    return list(zip(laid.choices, made, strict=True))


def plan(session: Session, *, body: SweepCreate, laid: Laid, settings: Settings) -> SweepPlan:
    """What a start would do. Raises the same."""
    drafter, strategy = Drafter(session, settings), laid.strategy
    made = drafts(laid, drafter)
    total = strategy.cells if isinstance(strategy, Tpe) else len(made)
    counts = strategies.rungs(strategy, total)
    known = sum(
        trials.known(session, draft.cell_sha256, draft.columns()) for _, draft in made[: laid.kept]
    )
    workers = heartbeats.slots(session, lease_seconds=settings.lease_seconds)
    at_once = min(body.parallel or workers, workers) or 1
    first = counts[0] - known  # at the first rung
    seconds = _seconds(laid, drafter, made, [first, *counts[1:]])
    sizes = [draft.parameters.trainable for _, draft in made]
    return SweepPlan(
        cells=total,
        known=known,
        rungs=[
            RungPlan(share=share, cells=count)
            for share, count in zip(strategies.shares(strategy), counts, strict=True)
        ],
        workers=workers,
        estimated_seconds=round(seconds / at_once + (estimate.START_SECONDS if seconds else 0)),
        trainable_parameters=(min(sizes), max(sizes)),
    )


def _tried(strategy: Strategy, over: Space) -> list[Choice]:
    """Cells that are only tried: of a model-based search nobody knows those to come."""
    return list(islice(search_space.ends(over), MOST_TRIED)) if isinstance(strategy, Tpe) else []


def _check(job: TrainSpec, over: Space) -> None:
    search_space.check_ranges(over)
    trials.check_fields(job, over)


def _lay(  # noqa: PLR0913 - a `Laid` in the making
    job: TrainSpec,
    over: Space,
    strategy: Strategy,
    choices: Sequence[Choice],
    find: Find,
    pinned: Pinned,
    *,
    kept: int,
) -> Laid:
    described = trials.specs(job, choices)
    trials.refuse(choices, described)
    specs = [each for each in described if isinstance(each, TrainSpec)]
    missing = pinned.look_up(specs, find)
    trials.refuse(choices, [missing.get(trials.base_name(spec), spec) for spec in specs])
    return Laid(over, strategy, choices, specs, pinned, kept)


def _seconds(laid: Laid, drafter: Drafter, made: Drafts, counts: Sequence[int]) -> float:
    """Of so many cells at each rung, one after the other in warm processes; `made`: the first."""
    total, since = 0.0, 0.0
    for rung, share in enumerate(strategies.shares(laid.strategy)):
        costs = [_warm_seconds(draft) for _, draft in made]
        if rung:
            parts = (trials.at_rung(spec, laid.strategy, rung) for spec in laid.specs)
            costs = [_warm_seconds(laid.pinned.draft(drafter, part, since=since)) for part in parts]
        total += counts[rung] * fmean(costs)
        since = share
    return total


def _warm_seconds(draft: Draft) -> float:
    """Of a cell in a process that has its libraries."""
    return draft.cost.seconds - draft.cost.start_seconds + WARM_SECONDS


def _larger(strategy: Strategy, wanted: int | None) -> Strategy:
    """The same with more cells to draw."""
    if wanted is None:
        return strategy
    if isinstance(strategy, Grid) or strategy.cells is None:
        raise NothingToExtend(reason="a grid grows by values of its fields, not by `cells`")
    if wanted <= strategy.cells:
        raise NothingToExtend(reason=f"`cells` counts all of them, and it has {strategy.cells}")
    return strategy.model_copy(update={"cells": wanted})


def _new(strategy: Strategy, over: Space, there: Sequence[Choice]) -> list[Choice]:
    """Cells that are not there yet. A model-based search thinks of its own when it goes on."""
    if isinstance(strategy, Tpe):
        return []
    if not isinstance(strategy, Grid) and strategy.cells is not None:
        wanted = strategy.cells - len(there)
        return search_space.sample(over, wanted, seed=strategy.seed, taken=there)
    seen = {search_space.named(each) for each in there}
    new = [each for each in search_space.grid(over) if search_space.named(each) not in seen]
    if len(there) + len(new) > search_space.MOST_CELLS:
        raise TooManyCells(cells=len(there) + len(new), limit=search_space.MOST_CELLS, at="space")
    return new
