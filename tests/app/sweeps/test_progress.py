"""Progress of a sweep, measured in training steps."""

import pytest

from app.sweeps.strategies import GridSearch, SuccessiveHalving, sweep_completed_fraction

HALVING = SuccessiveHalving(
    eta=3, min_full_runs=1, min_budget=1 / 9
)  # budgets: 9 trials 1/9, 3 trials 1/3, 1 trial 1


@pytest.mark.parametrize(
    ("finished", "expected"),
    [({}, 0.0), ({0: 9}, 9 / 21), ({0: 9, 1: 3}, 15 / 21), ({0: 9, 1: 3, 2: 1}, 1.0)],
)
def test_the_rungs_of_halving_are_weighted_by_their_steps(
    finished: dict[int, int], expected: float
) -> None:
    assert sweep_completed_fraction(HALVING, 9, finished) == pytest.approx(expected)


def test_the_trials_of_a_grid_have_equal_weight() -> None:
    assert sweep_completed_fraction(GridSearch(), 8, {0: 2}) == 0.25
    assert sweep_completed_fraction(GridSearch(), 0, {}) == 0.0
