"""A sweep over models with several targets: the highest mean skill wins, in every strategy."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.app.sweeps.conftest import JOB, GetSweep, StartSweep
from tests.app.sweeps.fake_worker import FakeSweepWorker
from tests.app.web.html_elements import visible_text

SEVERAL = {**JOB, "task": {"targets": {"mood": {"column": "label"}, "topic": {"column": "label"}}}}


@pytest.mark.parametrize(
    "strategy",
    [
        {"type": "grid"},
        pytest.param({"type": "halving", "trials": 9, "seed": 1}, marks=pytest.mark.slow),
    ],
    ids=lambda strategy: str(strategy["type"]),
)
def test_the_highest_skill_wins(
    strategy: dict[str, Any],
    start_sweep: StartSweep,
    worker: FakeSweepWorker,
    get_sweep: GetSweep,
    client: TestClient,
) -> None:
    started = start_sweep(job=SEVERAL, strategy=strategy)
    assert started["objective"] == "skill"
    worker.run_jobs()
    sweep = get_sweep(started)
    assert sweep["state"] == "finished"
    winner = sweep["result"]["winner"]
    assert winner["settings"]["method.alpha"] == 16
    assert winner["validation"]["metric"] == "skill"
    assert winner["validation"]["value"] == pytest.approx(0.82)
    assert winner["validation"]["low"] < winner["validation"]["value"]
    page = client.get(f"/sweeps/{sweep['id']}", headers={"Accept": "text/html"})
    assert "has the best validation mean skill" in visible_text(page.text)
    csv = client.get(f"/v1/sweeps/{sweep['id']}/results?format=csv")
    assert "validation_skill" in csv.text.splitlines()[0]


def test_columns_of_a_sample_are_checked_first(client: TestClient) -> None:
    job = {**JOB, "task": {"targets": "label,mood"}}
    refused = client.post("/v1/sweeps", json={"job": job, "space": {"method.r": [2, 4]}})
    assert (refused.status_code, refused.json()["code"]) == (422, "missing_column")
    assert "'mood'" in refused.text
