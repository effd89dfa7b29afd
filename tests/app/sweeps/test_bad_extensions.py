"""What a sweep cannot be extended by."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.app.sweeps.conftest import Look, Start


@pytest.mark.parametrize(
    ("strategy", "body", "code"),
    [
        ({"type": "grid"}, {}, "nothing_to_extend"),
        ({"type": "grid"}, {"space": {"method.r": [2, 4]}}, "nothing_to_extend"),
        ({"type": "grid"}, {"cells": 20}, "nothing_to_extend"),
        ({"type": "grid"}, {"space": {"optim.epochs": [3]}}, "unknown_field"),
        ({"type": "grid"}, {"space": {"method.r": [16, 400]}}, "invalid_cells"),
        ({"type": "random", "cells": 4}, {"cells": 4}, "nothing_to_extend"),
        ({"type": "random", "cells": 4}, {"cells": 13}, "space_too_small"),
        ({"type": "grid"}, {"space": {}}, "validation_failed"),
    ],
)
def test_what_is_refused(
    strategy: dict[str, Any],
    body: dict[str, Any],
    code: str,
    start: Start,
    look: Look,
    client: TestClient,
) -> None:
    sweep = start(strategy=strategy)
    answer = client.post(f"/v1/sweeps/{sweep['id']}/extend", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert look(sweep)["cells"] == sweep["cells"]
