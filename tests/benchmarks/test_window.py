"""A window ends with a pass, the one that comes nearest to its seconds."""

import pytest

from benchmarks.train.window import Window


@pytest.mark.parametrize(
    ("a_step", "passes"),
    [(4.0, 1), (2.0, 1), (1.25, 1), (0.6, 2), (0.4, 3), (0.2, 6)],
)
def test_whole_passes_come_nearest_to_the_seconds(a_step: float, passes: int) -> None:
    window = Window(seconds=60, a_pass=50)
    ended = next(n for n in range(1, 1000) if window.over(n, n * a_step))
    assert ended == passes * 50


def test_nothing_is_over_before_the_first_pass() -> None:
    assert not Window(seconds=0, a_pass=3).over(0, 0.0)
    assert not Window(seconds=0, a_pass=3).over(2, 9.0)
