"""How far a sweep is: of all steps, not of all cells."""

import pytest

from app.sweeps.progress import share
from app.sweeps.strategies import Grid, Halving

HALVING = Halving(eta=3, keep=1, first_share=1 / 9)  # 9 cells to 1/9, 3 to 1/3, 1 to the end


@pytest.mark.parametrize(
    ("ended", "expected"),
    [({}, 0.0), ({0: 9}, 9 / 21), ({0: 9, 1: 3}, 15 / 21), ({0: 9, 1: 3, 2: 1}, 1.0)],
)
def test_of_halving_each_rung_counts_its_steps(ended: dict[int, int], expected: float) -> None:
    assert share(HALVING, 9, ended) == pytest.approx(expected)


def test_of_a_grid_each_cell_counts_the_same() -> None:
    assert share(Grid(), 8, {0: 2}) == 0.25
    assert share(Grid(), 0, {}) == 0.0
