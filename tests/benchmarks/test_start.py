"""The benchmark of starts: a training of each kind, and the summary."""

import pytest

from benchmarks import start
from benchmarks.start import KINDS


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_both_kinds_of_worker_reach_the_first_step() -> None:
    found = start.measure(runs=1)
    assert found.keys() == KINDS.keys()
    for took in found.values():
        assert len(took) == 1
        assert 0 < took[0] < 120_000


@pytest.mark.parametrize(("took", "met"), [(1200.0, True), (1200.1, False)])
def test_summary_has_the_medians_and_the_bound(took: float, met: bool) -> None:
    metrics = {
        "start": start.quartiles([3000.0, 1.0, took]),
        "start_before": start.quartiles([5.0, 7]),
    }
    assert start.summary(metrics) == {"start_ms_p50": took, "start_ms_before": 6.0, "met": met}
