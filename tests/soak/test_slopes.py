"""The upper bound of a slope holds as often as it says."""

import numpy as np
import pytest

from tests.soak.slopes import fit_slope


@pytest.mark.parametrize("samples", [10, 600])
def test_a_line_has_its_slope(samples: int) -> None:
    x = np.linspace(0, 2, samples)
    slope = fit_slope(x, 3 * x + 5)
    assert slope.estimate == pytest.approx(3)
    assert slope.high == pytest.approx(3)


@pytest.mark.slow  # fits 400 lines
def test_the_bound_holds_for_samples_that_are_alike() -> None:
    """Noise that takes minutes to change, as of memory: the bound misses in about 5% of runs."""
    random = np.random.default_rng(0)
    x = np.linspace(0, 2, 600)
    missed = 0
    for _ in range(400):
        noise = np.zeros(600)
        for i in range(1, 600):
            noise[i] = 0.8 * noise[i - 1] + random.normal()
        missed += fit_slope(x, 3 * x + noise).high < 3
    assert missed / 400 < 0.1
