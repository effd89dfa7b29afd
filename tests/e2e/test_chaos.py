"""A few random faults on each kind of installation; `make chaos` injects many."""

import pytest

from tests.chaos.__main__ import run
from tests.chaos.scene import Counts
from tests.e2e.conftest import KINDS

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("kind", KINDS)
def test_few_faults_lose_duplicate_or_change_nothing(kind: str) -> None:
    counts = run(kind, faults=2, seed=3, jobs=["lora"])
    assert counts == Counts(faults=2, jobs=counts.jobs, labels=counts.labels)
    assert counts.jobs >= 1
    assert counts.labels >= 1
