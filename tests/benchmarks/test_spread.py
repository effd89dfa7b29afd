"""Standard errors and intervals, against formulas and simulated data."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.spread import Spread, bits


def test_single_seed_gives_the_interval_of_paired_proportions() -> None:
    b, c, both, n = 300, 250, 4200, 5000  # the first alone right, the second alone, both
    first = bits(["1" * b + "0" * c + "1" * both + "0" * (n - b - c - both)])
    second = bits(["0" * b + "1" * c + "1" * both + "0" * (n - b - c - both)])
    low, high = Spread(first - second).interval()
    error = np.sqrt(b + c - (b - c) ** 2 / n) / n  # the textbook form
    assert low == pytest.approx((b - c) / n - 1.96 * error, abs=1e-5)
    assert high == pytest.approx((b - c) / n + 1.96 * error, abs=1e-5)


def test_standard_errors_match_scipy() -> None:
    table = (np.random.default_rng(0).random((3, 200)) < [[0.7], [0.75], [0.9]]).astype(float)
    spread = Spread(table)
    assert spread.mean == pytest.approx(table.sum() / 600)
    assert spread.over_seeds == pytest.approx(stats.sem([row.sum() / 200 for row in table]))
    assert spread.over_texts == pytest.approx(stats.sem([sum(column) / 3 for column in table.T]))
    assert spread.error**2 == pytest.approx(spread.over_seeds**2 + spread.over_texts**2)


def test_seed_variance_alone_gives_the_t_interval() -> None:
    table = np.repeat([[0.2], [0.1], [0.6]], 50, axis=1)
    expected = stats.t.interval(0.95, 2, loc=0.3, scale=stats.sem([0.2, 0.1, 0.6]))
    assert Spread(table).interval() == pytest.approx(expected)


def test_identical_predictions_have_zero_difference() -> None:
    assert Spread(bits(["0110"]) - bits(["0110"])).interval() == (0.0, 0.0)


@pytest.mark.parametrize(
    ("of_seeds", "of_texts"),
    [
        pytest.param(0.0, 0.5, marks=pytest.mark.slow),
        pytest.param(0.05, 0.5, marks=pytest.mark.slow),
        (0.1, 0.1),
    ],
)
def test_interval_has_95_percent_coverage(of_seeds: float, of_texts: float) -> None:
    draw, truth, inside, times = np.random.default_rng(7), 0.02, 0, 2000
    for _ in range(times):
        seeds, texts = draw.normal(0, of_seeds, (3, 1)), draw.normal(0, of_texts, (1, 100))
        low, high = Spread(truth + seeds + texts + draw.normal(0, 0.2, (3, 100))).interval()
        inside += low <= truth <= high
    # Welch's degrees of freedom are guessed from three seeds; 1.96 errors would hold it 84 times.
    assert 0.92 < inside / times < 0.99
