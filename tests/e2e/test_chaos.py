"""A few faults of each kind of installation; `make chaos` does many."""

import pytest

from tests.chaos.__main__ import run
from tests.chaos.scene import Counts
from tests.e2e.kinds import CLUSTER_FIRST

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@CLUSTER_FIRST
def test_a_few_faults_lose_double_and_change_nothing(kind: str) -> None:
    counts = run(kind, faults=2, seed=3, jobs=["lora"])
    assert counts == Counts(faults=2, jobs=counts.jobs)
    assert counts.jobs >= 1
