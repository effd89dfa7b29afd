"""Search strategies: pure functions from the results so far to the trials that run next.

A strategy works in batches: it is asked again when every trial that it proposed has ended. The
same results always give the same trials, whichever process asks.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from app.sweeps.search_space import (
    MAX_TRIALS,
    Range,
    SearchSpace,
    TrialSettings,
    iterate_grid_settings,
    sample_settings,
)
from lora_core.specs.fields import Float, FrozenModel, Int

TrialCount = Annotated[Int, Field(ge=1, le=MAX_TRIALS)]
Seed = Annotated[Int, Field(ge=0, lt=2**32)]


class GridSearch(FrozenModel):
    """Every combination of values."""

    type: Literal["grid"] = "grid"


class RandomSearch(FrozenModel):
    """Trials drawn at random, all different (Bergstra & Bengio 2012)."""

    type: Literal["random"] = "random"
    trials: TrialCount
    seed: Seed = 0


class SuccessiveHalving(FrozenModel):
    """Successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943), synchronous by rung.

    All trials run `min_budget` of their steps. The best of them, one in `eta`, continue from
    their checkpoints with `eta` times that budget, and so on. The learning rate schedule is always
    that of a full run, so the trials of a rung are compared at the same point of their schedule.
    """

    type: Literal["halving"] = "halving"
    eta: Int = Field(default=3, ge=2, le=16)
    min_budget: Float = Field(
        default=1 / 9, ge=1e-4, lt=1, description="Share of all steps that the first rung runs."
    )
    min_full_runs: Int = Field(
        default=3, ge=1, le=100, description="Minimum number of trials that run to the end."
    )
    validation_texts: Int | None = Field(
        default=None, ge=1, description="Validation texts used before the last rung. Null: all."
    )
    trials: TrialCount | None = Field(
        default=None, description="Number of trials drawn at random. Null: the whole grid."
    )
    seed: Seed = 0

    @property
    def budgets(self) -> tuple[float, ...]:
        """Share of all training steps that a trial has run after each rung; the last one is 1."""
        rungs = math.ceil(math.log(1 / self.min_budget, self.eta) - 1e-9)
        return (*(self.min_budget * self.eta**rung for rung in range(rungs)), 1.0)


class TpeSearch(FrozenModel):
    """Tree-structured Parzen estimator (Bergstra et al. 2011), as implemented in Optuna.

    It proposes `batch` trials at a time, from the results of all earlier trials.
    """

    type: Literal["tpe"] = "tpe"
    trials: TrialCount
    batch: Int = Field(default=4, ge=1, le=100)
    seed: Seed = 0


Strategy = Annotated[
    GridSearch | RandomSearch | SuccessiveHalving | TpeSearch, Field(discriminator="type")
]


@dataclass(frozen=True)
class TrialResult:
    """Result of a trial at one rung. `score`: higher is better; None: the trial failed."""

    number: int
    rung: int
    settings: TrialSettings
    score: float | None


@dataclass(frozen=True)
class NextTrials:
    """What runs next: settings of new trials, and by rung the trials promoted to it."""

    new: Sequence[TrialSettings] = ()
    promoted: Mapping[int, Sequence[int]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.new or self.promoted)


def rung_budgets(strategy: Strategy) -> tuple[float, ...]:
    """Return the share of all training steps that a trial has run after each rung."""
    return strategy.budgets if isinstance(strategy, SuccessiveHalving) else (1.0,)


def initial_trials(strategy: Strategy, space: SearchSpace) -> list[TrialSettings]:
    """Return the first trials. Raises what `iterate_grid_settings` and `sample_settings` raise."""
    match strategy:
        case (
            RandomSearch(trials=int(count), seed=seed)
            | SuccessiveHalving(trials=int(count), seed=seed)
        ):
            return sample_settings(space, count, seed=seed)
        case TpeSearch():
            return _tpe_suggestions(strategy, space, [])
        case _:
            return list(iterate_grid_settings(space))


def next_trials(
    strategy: Strategy, space: SearchSpace, results: Sequence[TrialResult]
) -> NextTrials:
    """Return what runs after all trials so far have ended; empty when the sweep is complete."""
    match strategy:
        case SuccessiveHalving():
            return NextTrials(promoted=_promotions(strategy, results))
        case TpeSearch():
            return NextTrials(new=_tpe_suggestions(strategy, space, results))
        case _:
            return NextTrials()


def trials_per_rung(strategy: Strategy, count: int) -> list[int]:
    """Return the number of trials at each rung if none of the `count` trials fails."""
    counts = [count]
    for _ in rung_budgets(strategy)[1:]:
        counts.append(_promotion_count(strategy, counts[-1]))  # type: ignore[arg-type]
    return counts


def sweep_completed_fraction(strategy: Strategy, trials: int, finished: Mapping[int, int]) -> float:
    """Return the fraction of all training steps that is done, 0 to 1.

    `finished` gives the number of ended trials by rung; running trials count as not started.
    """
    done = total = begin = 0.0
    planned = trials_per_rung(strategy, trials)
    budgets = rung_budgets(strategy)
    for rung, (end, count) in enumerate(zip(budgets, planned, strict=True)):
        done += (end - begin) * min(finished.get(rung, 0), count)
        total += (end - begin) * count
        begin = end
    return done / total if total else 0.0


def _promotion_count(strategy: SuccessiveHalving, count: int) -> int:
    return min(count, max(strategy.min_full_runs, math.ceil(count / strategy.eta)))


def _promotions(
    strategy: SuccessiveHalving, results: Sequence[TrialResult]
) -> dict[int, list[int]]:
    """Return the trials to promote to the lowest rung that still lacks some: {rung: numbers}.

    Trials promoted before stay promoted when trials are added later.
    """
    by_rung: defaultdict[int, list[TrialResult]] = defaultdict(list)
    for result in results:
        by_rung[result.rung].append(result)
    for rung in range(len(strategy.budgets) - 1):
        # Highest score first; ties go to the lowest number.
        scored = [(-each.score, each.number) for each in by_rung[rung] if each.score is not None]
        count = _promotion_count(strategy, len(by_rung[rung]))
        best = [number for _, number in sorted(scored)][:count]
        promoted = {result.number for result in by_rung[rung + 1]}
        if missing := [number for number in best if number not in promoted]:
            return {rung + 1: sorted(missing)}
    return {}


def _tpe_suggestions(
    strategy: TpeSearch, space: SearchSpace, results: Sequence[TrialResult]
) -> list[TrialSettings]:
    """Return the next batch. A repeated suggestion costs nothing: its result is reused."""
    count = min(strategy.batch, strategy.trials - len(results))
    if count <= 0:
        return []
    import optuna  # takes a third of a second

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(
        seed=(strategy.seed + len(results)) % 2**32, multivariate=True, constant_liar=True
    )
    study = optuna.create_study(direction="maximize", sampler=sampler)
    distributions = {
        name: _optuna_distribution(values) for name, values in space.dimensions.items()
    }
    for result in results:
        with suppress(ValueError, TypeError):  # outside of the space, which was extended since
            study.add_trial(_optuna_trial(result, space, distributions))
    asked = [study.ask(distributions) for _ in range(count)]
    return [_settings_from_params(trial.params, space) for trial in asked]


def _optuna_distribution(values: list[Any] | Range) -> Any:
    """Return the distribution of a field. Listed values are encoded by index: they may be lists."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if isinstance(values, list):
        return CategoricalDistribution(tuple(range(len(values))))
    if values.is_integer:
        return IntDistribution(int(values.low), int(values.high), log=values.log)
    return FloatDistribution(values.low, values.high, log=values.log)


def _optuna_trial(result: TrialResult, space: SearchSpace, distributions: Mapping[str, Any]) -> Any:
    from optuna.trial import TrialState, create_trial

    failed = result.score is None
    return create_trial(
        params={
            name: values.index(result.settings[name])
            if isinstance(values, list)
            else result.settings[name]
            for name, values in space.dimensions.items()
        },
        distributions=dict(distributions),
        state=TrialState.FAIL if failed else TrialState.COMPLETE,
        value=None if failed else result.score,
    )


def _settings_from_params(params: Mapping[str, Any], space: SearchSpace) -> TrialSettings:
    settings: TrialSettings = {}
    for name, values in space.dimensions.items():
        if isinstance(values, list):
            settings[name] = values[params[name]]
        else:
            settings[name] = params[name] if values.is_integer else values.rounded(params[name])
    return settings
