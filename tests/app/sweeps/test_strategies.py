"""Which trials a strategy proposes next."""

from collections.abc import Mapping
from typing import Any

import optuna
import pytest

from app.sweeps import strategies
from app.sweeps.errors import SearchSpaceTooSmall
from app.sweeps.search_space import SearchSpace
from app.sweeps.strategies import (
    GridSearch,
    RandomSearch,
    SuccessiveHalving,
    TpeSearch,
    TrialResult,
)

SPACE = SearchSpace.model_validate({"dimensions": {"a": list(range(9)), "b": [1, 2, 3]}})
RANGES = SearchSpace.model_validate(
    {
        "dimensions": {
            "rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "r": {"low": 1, "high": 32},
            "targets": [["query"], ["query", "value"]],
        }
    }
)


def results_of(scores: Mapping[int, float | None], rung: int = 0) -> list[TrialResult]:
    return [TrialResult(number, rung, {"a": number}, score) for number, score in scores.items()]


def test_grid_and_random_search_have_a_single_batch() -> None:
    assert len(strategies.initial_trials(GridSearch(), SPACE)) == 27
    assert len(strategies.initial_trials(RandomSearch(trials=5), SPACE)) == 5
    for each in (GridSearch(), RandomSearch(trials=5)):
        assert not strategies.next_trials(each, SPACE, results_of({1: 0.5}))
    with pytest.raises(SearchSpaceTooSmall):
        strategies.initial_trials(RandomSearch(trials=28), SPACE)


@pytest.mark.parametrize(
    ("eta", "min_budget", "budgets"),
    [
        (3, 1 / 9, (1 / 9, 1 / 3, 1.0)),
        (3, 1 / 27, (1 / 27, 1 / 9, 1 / 3, 1.0)),
        (2, 0.25, (0.25, 0.5, 1.0)),
        (4, 0.2, (0.2, 0.8, 1.0)),
        (3, 0.5, (0.5, 1.0)),
    ],
)
def test_the_budgets_of_halving(eta: int, min_budget: float, budgets: tuple[float, ...]) -> None:
    assert SuccessiveHalving(eta=eta, min_budget=min_budget).budgets == pytest.approx(budgets)


def test_halving_promotes_one_in_eta_and_at_least_keep() -> None:
    strategy = SuccessiveHalving(eta=3, min_budget=1 / 9, min_full_runs=2)
    first = {n: n / 100 for n in range(1, 13)}
    proposed = strategies.next_trials(strategy, SPACE, results_of(first))
    assert proposed.promoted == {1: [9, 10, 11, 12]}
    second = results_of(first) + results_of(dict.fromkeys((9, 10, 11, 12), 0.5) | {11: 0.9}, rung=1)
    assert strategies.next_trials(strategy, SPACE, second).promoted == {2: [9, 11]}
    third = second + results_of({9: 0.5, 11: 0.5}, rung=2)
    assert not strategies.next_trials(strategy, SPACE, third)
    assert strategies.trials_per_rung(strategy, 12) == [12, 4, 2]


def test_failed_trials_are_never_promoted() -> None:
    scores: dict[int, float | None] = {1: None, 2: 0.1, 3: None, 4: 0.2}
    proposed = strategies.next_trials(
        SuccessiveHalving(eta=2, min_full_runs=3, min_budget=0.5), SPACE, results_of(scores)
    )
    assert proposed.promoted == {1: [2, 4]}
    none = results_of(dict.fromkeys((1, 2, 3)))
    assert not strategies.next_trials(SuccessiveHalving(), SPACE, none)


def test_ties_go_to_the_lower_number() -> None:
    proposed = strategies.next_trials(
        SuccessiveHalving(eta=3, min_full_runs=1, min_budget=1 / 3),
        SPACE,
        results_of(dict.fromkeys(range(1, 7), 0.5)),
    )
    assert proposed.promoted == {1: [1, 2]}


def test_trials_added_later_join_those_already_promoted() -> None:
    strategy = SuccessiveHalving(eta=2, min_full_runs=1, min_budget=0.5)
    before = results_of({1: 0.1, 2: 0.2}) + results_of({2: 0.2}, rung=1)
    assert not strategies.next_trials(strategy, SPACE, before)
    later = results_of({1: 0.1, 2: 0.2, 3: 0.9, 4: 0.0}) + results_of({2: 0.2}, rung=1)
    assert strategies.next_trials(strategy, SPACE, later).promoted == {1: [3]}


def proposals(count: int) -> list[dict[str, Any]]:
    """All trials of a search, each batch from the scores of the previous ones."""
    strategy, trials = TpeSearch(trials=count, batch=4, seed=1), []
    trials += strategies.initial_trials(strategy, RANGES)
    while True:
        results = [
            TrialResult(n, 0, settings, None if n % 5 == 0 else -abs(settings["rate"] - 0.01))
            for n, settings in enumerate(trials, start=1)
        ]
        proposed = strategies.next_trials(strategy, RANGES, results)
        if not proposed:
            return trials
        trials += proposed.new


def test_a_model_based_search_is_deterministic() -> None:
    trials = proposals(22)
    assert len(trials) == 22
    assert trials == proposals(22)
    assert trials[:20] == proposals(20)
    for settings in trials:
        assert 1e-4 <= settings["rate"] <= 1e-1
        assert type(settings["r"]) is int
        assert settings["targets"] in [["query"], ["query", "value"]]


def test_it_learns_from_results() -> None:
    """Compared with Optuna's random search with as many trials, on a smooth function."""
    trials = proposals(60)
    found = min(abs(settings["rate"] - 0.01) for settings in trials[30:])
    late = sorted(abs(settings["rate"] - 0.01) for settings in trials[30:])[15]
    sampler = optuna.samplers.RandomSampler(seed=1)
    study = optuna.create_study(sampler=sampler)
    rates = [study.ask().suggest_float("rate", 1e-4, 1e-1, log=True) for _ in range(30)]
    assert late < sorted(abs(rate - 0.01) for rate in rates)[15]
    assert found < 0.005
