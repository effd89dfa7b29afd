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


def test_summary_has_the_medians() -> None:
    metrics = {"start": start.quartiles([3.0, 1.0, 2.0]), "start_before": start.quartiles([5.0, 7])}
    assert start.summary(metrics) == {"start_ms_p50": 2.0, "start_ms_before": 6.0}
