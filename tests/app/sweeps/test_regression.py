"""A sweep over models that predict a number: the lowest RMSE wins, in every strategy."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.app.sweeps.conftest import JOB, GetSweep, GetTrials, StartSweep
from tests.app.sweeps.fake_worker import FakeSweepWorker
from tests.app.web.html_elements import visible_text

REGRESSION = {**JOB, "task": {"type": "regression"}}


@pytest.mark.parametrize(
    "strategy",
    [
        {"type": "grid"},
        {"type": "halving", "trials": 9, "seed": 1},
        pytest.param({"type": "tpe", "trials": 12, "seed": 0}, marks=pytest.mark.slow),
    ],
    ids=lambda strategy: str(strategy["type"]),
)
def test_the_lowest_rmse_wins(
    strategy: dict[str, Any],
    start_sweep: StartSweep,
    worker: FakeSweepWorker,
    get_sweep: GetSweep,
    get_trials: GetTrials,
) -> None:
    started = start_sweep(job=REGRESSION, strategy=strategy)
    assert started["objective"] == "rmse"
    worker.run_jobs()
    sweep = get_sweep(started)
    assert sweep["state"] == "finished"
    winner = sweep["result"]["winner"]
    complete = [trial for trial in get_trials(started) if trial["budget"] == 1.0]
    lowest = min(trial["metrics"]["validation"]["rmse"] for trial in complete)
    assert winner["settings"]["method.alpha"] == 16
    assert winner["validation"]["metric"] == "rmse"
    assert winner["validation"]["value"] == pytest.approx(lowest, rel=1e-5)
    assert winner["validation"]["accuracy"] is None
    assert winner["validation"]["low"] < lowest < winner["validation"]["high"]
    # Every other trial is worse on the same texts, in proportion.
    assert sweep["result"]["within_noise"] == [winner["number"]]
    assert sweep["result"]["compared"] == len(complete)


def test_pages_and_exports_show_the_rmse(
    start_sweep: StartSweep, worker: FakeSweepWorker, client: TestClient
) -> None:
    sweep = start_sweep(job=REGRESSION, name="stars")
    worker.run_jobs()
    page = client.get(f"/sweeps/{sweep['id']}", headers={"Accept": "text/html"})
    read = visible_text(page.text)
    assert page.status_code == 200
    assert "has the best validation RMSE" in read
    assert "paired bootstrap over the same validation texts" in read
    assert "accuracy" not in read
    assert "RMSE" in visible_text(client.get("/sweeps", headers={"Accept": "text/html"}).text)
    csv = client.get(f"/v1/sweeps/{sweep['id']}/results?format=csv")
    assert "validation_rmse" in csv.text.splitlines()[0]
    report = client.get(f"/v1/sweeps/{sweep['id']}/report")
    assert "validation RMSE" in report.text


@pytest.fixture
def _stars(client: TestClient) -> None:
    """Upload a dataset of numbers."""
    rows = "".join(f"film {i},{i / 7:.2f}\n" for i in range(60))
    uploaded = client.post(
        "/v1/datasets",
        files={"file": ("stars.csv", f"text,label\n{rows}".encode())},
        data={"task": "regression"},
    )
    assert uploaded.status_code == 201, uploaded.text


@pytest.mark.usefixtures("_stars")
@pytest.mark.parametrize("strategy", [{"type": "grid"}, {"type": "tpe", "trials": 4, "batch": 1}])
def test_sources_of_different_tasks_are_rejected(
    strategy: dict[str, Any],
    client: TestClient,
    start_sweep: StartSweep,
    get_sweep: GetSweep,
) -> None:
    job = {"method": JOB["method"]}
    body = {"job": job, "space": {"data.source": ["imdb", "stars"]}, "strategy": strategy}
    one = start_sweep(**{**body, "space": {"data.source": ["imdb"]}})
    wider = {"space": {"data.source": ["stars"]}, **({"trials": 5} if "trials" in strategy else {})}
    for path, sent in (
        ("", body),
        ("?dry_run=true", body),
        (f"/{one['id']}/extend", wider),
    ):
        refused = client.post(f"/v1/sweeps{path}", json=sent)
        assert (refused.status_code, refused.json()["code"]) == (422, "unknown_field"), refused.text
        assert "'data.source'" in refused.json()["detail"]
        assert "trials of different tasks cannot be compared" in refused.json()["detail"]
    assert get_sweep(one)["space"] == one["space"]


@pytest.mark.usefixtures("_stars")
def test_a_dataset_of_numbers_is_ranked_by_rmse_without_naming_the_task(
    client: TestClient,
    start_sweep: StartSweep,
    worker: FakeSweepWorker,
    get_sweep: GetSweep,
) -> None:
    job = {**JOB, "data": {"source": "stars"}}
    body = {"job": job, "space": {"method.r": [2, 4]}, "objective": "accuracy"}
    for query in ("", "?dry_run=true"):
        refused = client.post(f"/v1/sweeps{query}", json=body)
        assert (refused.status_code, refused.json()["code"]) == (422, "objective_unsupported")
    for objective in ({}, {"objective": "mae"}):
        sweep = start_sweep(job=job, space={"method.r": [2, 4]}, **objective)
        assert sweep["objective"] == objective.get("objective", "rmse")
        assert sweep["job"]["task"]["type"] == "regression"
        worker.run_jobs()
        assert get_sweep(sweep)["result"]["winner"]["validation"]["metric"] == "rmse"
