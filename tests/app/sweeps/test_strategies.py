"""Which cells come next, from what is known alone."""

from collections.abc import Mapping
from typing import Any

import optuna
import pytest

from app.sweeps import strategies
from app.sweeps.errors import SpaceTooSmall
from app.sweeps.search_space import Space
from app.sweeps.strategies import Grid, Halving, Known, Random, Tpe

SPACE = Space.model_validate({"dimensions": {"a": list(range(9)), "b": [1, 2, 3]}})
RANGES = Space.model_validate(
    {
        "dimensions": {
            "rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "r": {"low": 1, "high": 32},
            "targets": [["query"], ["query", "value"]],
        }
    }
)


def known(scores: Mapping[int, float | None], rung: int = 0) -> list[Known]:
    return [Known(number, rung, {"a": number}, score) for number, score in scores.items()]


def test_grid_and_random_have_nothing_after_their_first_cells() -> None:
    assert len(strategies.first(Grid(), SPACE)) == 27
    assert len(strategies.first(Random(cells=5), SPACE)) == 5
    for each in (Grid(), Random(cells=5)):
        assert not strategies.following(each, SPACE, known({1: 0.5}))
    with pytest.raises(SpaceTooSmall):
        strategies.first(Random(cells=28), SPACE)


@pytest.mark.parametrize(
    ("eta", "first", "shares"),
    [
        (3, 1 / 9, (1 / 9, 1 / 3, 1.0)),
        (3, 1 / 27, (1 / 27, 1 / 9, 1 / 3, 1.0)),
        (2, 0.25, (0.25, 0.5, 1.0)),
        (4, 0.2, (0.2, 0.8, 1.0)),
        (3, 0.5, (0.5, 1.0)),
    ],
)
def test_the_rungs_of_halving(eta: int, first: float, shares: tuple[float, ...]) -> None:
    assert Halving(eta=eta, first_share=first).shares == pytest.approx(shares)


def test_halving_lets_one_in_eta_go_on_and_keeps_some_to_the_end() -> None:
    strategy = Halving(eta=3, first_share=1 / 9, keep=2)
    first = {n: n / 100 for n in range(1, 13)}
    step = strategies.following(strategy, SPACE, known(first))
    assert step.promoted == {1: [9, 10, 11, 12]}
    second = known(first) + known(dict.fromkeys((9, 10, 11, 12), 0.5) | {11: 0.9}, rung=1)
    assert strategies.following(strategy, SPACE, second).promoted == {2: [9, 11]}
    third = second + known({9: 0.5, 11: 0.5}, rung=2)
    assert not strategies.following(strategy, SPACE, third)
    assert strategies.rungs(strategy, 12) == [12, 4, 2]


def test_what_failed_never_goes_on() -> None:
    scores: dict[int, float | None] = {1: None, 2: 0.1, 3: None, 4: 0.2}
    step = strategies.following(Halving(eta=2, keep=3, first_share=0.5), SPACE, known(scores))
    assert step.promoted == {1: [2, 4]}
    none = known(dict.fromkeys((1, 2, 3)))
    assert not strategies.following(Halving(), SPACE, none)


def test_equal_scores_go_by_number() -> None:
    step = strategies.following(
        Halving(eta=3, keep=1, first_share=1 / 3), SPACE, known(dict.fromkeys(range(1, 7), 0.5))
    )
    assert step.promoted == {1: [1, 2]}


def test_cells_that_came_later_join_those_that_went_on() -> None:
    strategy = Halving(eta=2, keep=1, first_share=0.5)
    before = known({1: 0.1, 2: 0.2}) + known({2: 0.2}, rung=1)
    assert not strategies.following(strategy, SPACE, before)
    later = known({1: 0.1, 2: 0.2, 3: 0.9, 4: 0.0}) + known({2: 0.2}, rung=1)
    assert strategies.following(strategy, SPACE, later).promoted == {1: [3]}


def proposals(upto: int) -> list[dict[str, Any]]:
    """All cells of a search, each batch from the scores of those before."""
    strategy, cells = Tpe(cells=upto, batch=4, seed=1), []
    cells += strategies.first(strategy, RANGES)
    while True:
        scored = [
            Known(n, 0, cell, None if n % 5 == 0 else -abs(cell["rate"] - 0.01))
            for n, cell in enumerate(cells, start=1)
        ]
        step = strategies.following(strategy, RANGES, scored)
        if not step:
            return cells
        cells += step.new


def test_a_model_based_search_proposes_the_same_whoever_asks() -> None:
    cells = proposals(22)
    assert len(cells) == 22
    assert cells == proposals(22)
    assert cells[:20] == proposals(20)
    for cell in cells:
        assert 1e-4 <= cell["rate"] <= 1e-1
        assert type(cell["r"]) is int
        assert cell["targets"] in [["query"], ["query", "value"]]


def test_it_learns_from_what_it_was_told() -> None:
    """Beside Optuna's own random search over the same number of cells, on a smooth function."""
    cells = proposals(60)
    found = min(abs(cell["rate"] - 0.01) for cell in cells[30:])
    late = sorted(abs(cell["rate"] - 0.01) for cell in cells[30:])[15]
    sampler = optuna.samplers.RandomSampler(seed=1)
    study = optuna.create_study(sampler=sampler)
    rates = [study.ask().suggest_float("rate", 1e-4, 1e-1, log=True) for _ in range(30)]
    assert late < sorted(abs(rate - 0.01) for rate in rates)[15]
    assert found < 0.005
