"""Which cells come next: pure functions of what is known, so that whoever asks gets the same.

Every strategy goes on in batches: it is asked when all that it gave out has ended.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from app.sweeps.search_space import MOST_CELLS, Range, Settings, Space, grid, sample
from lora_core.specs.frozen import Float, Frozen, Int

Cells = Annotated[Int, Field(ge=1, le=MOST_CELLS)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]


class Grid(Frozen):
    """Every cell of the space."""

    type: Literal["grid"] = "grid"


class Random(Frozen):
    """Cells drawn at random, all different (Bergstra & Bengio 2012)."""

    type: Literal["random"] = "random"
    cells: Cells
    seed: Seed = 0


class Halving(Frozen):
    """Successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943), synchronous by rung.

    All cells run `first_share` of their steps; the best of them, one in `eta`, go on from their
    checkpoints to `eta` times that, and so on. Rates are those of whole runs throughout, so the
    cells of a rung are compared at the same point of their schedule.
    """

    type: Literal["halving"] = "halving"
    eta: Int = Field(default=3, ge=2, le=16)
    first_share: Float = Field(default=1 / 9, ge=1e-4, lt=1)  # of the steps of a whole run
    keep: Int = Field(default=3, ge=1, le=100)  # cells that run to the end at least
    validation_texts: Int | None = Field(default=None, ge=1)  # that judge a trial; None: all
    cells: Cells | None = None  # drawn at random; None: the grid
    seed: Seed = 0

    @property
    def shares(self) -> tuple[float, ...]:
        """Of each rung, the last is 1."""
        rungs = math.ceil(math.log(1 / self.first_share, self.eta) - 1e-9)
        return (*(self.first_share * self.eta**rung for rung in range(rungs)), 1.0)


class Tpe(Frozen):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), as Optuna has it.

    It proposes `batch` cells at a time, from the ends of all before.
    """

    type: Literal["tpe"] = "tpe"
    cells: Cells
    batch: Int = Field(default=4, ge=1, le=100)
    seed: Seed = 0


Strategy = Annotated[Grid | Random | Halving | Tpe, Field(discriminator="type")]


@dataclass(frozen=True)
class Known:
    """One cell that has ended at one rung. `score`: higher is better; None: it failed."""

    number: int
    rung: int
    settings: Settings
    score: float | None


@dataclass(frozen=True)
class Step:
    """What a sweep gets next: new cells, and numbers of cells that go on to a rung."""

    new: Sequence[Settings] = ()
    promoted: Mapping[int, Sequence[int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.new or self.promoted)


def shares(strategy: Strategy) -> tuple[float, ...]:
    """The share of its steps that a cell has run after each rung."""
    return strategy.shares if isinstance(strategy, Halving) else (1.0,)


def first(strategy: Strategy, space: Space) -> list[Settings]:
    """The cells to begin with. Raises what `grid` and `sample` raise."""
    match strategy:
        case Random(cells=int(cells), seed=seed) | Halving(cells=int(cells), seed=seed):
            return sample(space, cells, seed=seed)
        case Tpe():
            return _proposed(strategy, space, [])
        case _:
            return list(grid(space))


def following(strategy: Strategy, space: Space, known: Sequence[Known]) -> Step:
    """What comes after all that is known has ended; nothing: the sweep is through."""
    match strategy:
        case Halving():
            return Step(promoted=_promoted(strategy, known))
        case Tpe():
            return Step(new=_proposed(strategy, space, known))
        case _:
            return Step()


def rungs(strategy: Strategy, cells: int) -> list[int]:
    """How many cells run at each rung, if none fails."""
    found = [cells]
    for _ in shares(strategy)[1:]:
        found.append(_survivors(strategy, found[-1]))  # type: ignore[arg-type]
    return found


def _survivors(strategy: Halving, cells: int) -> int:
    return min(cells, max(strategy.keep, math.ceil(cells / strategy.eta)))


def _promoted(strategy: Halving, known: Sequence[Known]) -> dict[int, list[int]]:
    """By rung, who goes there: of the lowest rung that has somebody to give.

    Those that were promoted before stay so, if cells were added later.
    """
    at: defaultdict[int, list[Known]] = defaultdict(list)
    for each in known:
        at[each.rung].append(each)
    for rung in range(len(strategy.shares) - 1):
        # The higher score first; of equal ones the lower number.
        alive = [(-each.score, each.number) for each in at[rung] if each.score is not None]
        chosen = [number for _, number in sorted(alive)][: _survivors(strategy, len(at[rung]))]
        there = {each.number for each in at[rung + 1]}
        if going := [number for number in chosen if number not in there]:
            return {rung + 1: sorted(going)}
    return {}


def _proposed(strategy: Tpe, space: Space, known: Sequence[Known]) -> list[Settings]:
    """The next batch. A cell that it repeats costs nothing: its figures are known."""
    wanted = min(strategy.batch, strategy.cells - len(known))
    if wanted <= 0:
        return []
    import optuna  # a third of a second

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(
        seed=(strategy.seed + len(known)) % 2**32, multivariate=True, constant_liar=True
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {name: _distribution(values) for name, values in space.dimensions.items()}
    for each in known:
        with suppress(ValueError, TypeError):  # of a space that was another one before
            study.add_trial(_trial(each, space, distributions))
    asked = [study.ask(distributions) for _ in range(wanted)]
    return [_settings(trial.params, space) for trial in asked]


def _distribution(values: list[Any] | Range) -> Any:
    """Values may be lists, which Optuna knows by their place."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(values, list):
        return CategoricalDistribution(tuple(range(len(values))))
    if values.whole:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _trial(known: Known, space: Space, distributions: Mapping[str, Any]) -> Any:
    from optuna.trial import TrialState, create_trial

    failed = known.score is None
    return create_trial(
        params={
            name: values.index(known.settings[name])
            if isinstance(values, list)
            else known.settings[name]
            for name, values in space.dimensions.items()
        },
        distributions=dict(distributions),
        state=TrialState.FAIL if failed else TrialState.COMPLETE,
        value=None if failed else known.score,
    )


def _settings(params: Mapping[str, Any], space: Space) -> Settings:
    found: Settings = {}
    for name, values in space.dimensions.items():
        if isinstance(values, list):
            found[name] = values[params[name]]
        else:
            found[name] = params[name] if values.whole else values.rounded(params[name])
    return found
