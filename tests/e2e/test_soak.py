"""Two minutes of everything with a fault; `make soak` takes hours."""

import pytest

from tests.soak.__main__ import run

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_short_run_uses_everything_and_loses_nothing() -> None:
    result = run("embedded", hours=2 / 60, seed=1)
    assert result["clean"], result
    assert result["faults"] >= 1
    assert result["internal_errors"] == 0
    assert result["operations"].keys() >= {"predict", "show_a_page", "upload", "run_predictions"}
