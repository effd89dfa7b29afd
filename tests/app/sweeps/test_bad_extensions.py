"""Invalid extensions of a sweep."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.app.sweeps.conftest import GetSweep, StartSweep


@pytest.mark.parametrize(
    ("strategy", "body", "code"),
    [
        ({"type": "grid"}, {}, "nothing_to_extend"),
        ({"type": "grid"}, {"space": {"method.r": [2, 4]}}, "nothing_to_extend"),
        ({"type": "grid"}, {"trials": 20}, "nothing_to_extend"),
        ({"type": "grid"}, {"space": {"optim.epochs": [3]}}, "unknown_field"),
        ({"type": "grid"}, {"space": {"method.r": [16, 400]}}, "invalid_trials"),
        ({"type": "random", "trials": 4}, {"trials": 4}, "nothing_to_extend"),
        ({"type": "random", "trials": 4}, {"trials": 13}, "space_too_small"),
        ({"type": "grid"}, {"space": {}}, "validation_failed"),
    ],
)
def test_invalid_extension_is_rejected(
    strategy: dict[str, Any],
    body: dict[str, Any],
    code: str,
    start_sweep: StartSweep,
    get_sweep: GetSweep,
    client: TestClient,
) -> None:
    sweep = start_sweep(strategy=strategy)
    response = client.post(f"/v1/sweeps/{sweep['id']}/extend", json=body)
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert get_sweep(sweep)["trial_count"] == sweep["trial_count"]
