"""Routes of charts and report."""

from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from app.charts import figures
from app.charts.figures import Chart
from app.resources import Resources
from app.sweeps.snapshot import SweepSnapshot
from tests.app.sweeps.conftest import JOB, SPACE
from tests.app.sweeps.fake_worker import FakeSweepWorker
from tests.sweep_snapshots import grid_snapshot, make_snapshot, make_trial


def test_charts_are_those_of_the_report(client: TestClient, resources: Resources) -> None:
    sweep_id = client.post("/v1/sweeps", json={"job": JOB, "space": SPACE}).json()["id"]
    address = f"/v1/sweeps/{sweep_id}"
    assert client.get(f"{address}/charts").json() == []  # no trial is complete
    FakeSweepWorker(resources).run_jobs()
    found = client.get(f"{address}/charts").json()
    kinds = [each["figure"]["data"][0]["type"] for each in found]
    assert kinds == ["heatmap", "bar", *["scatter"] * 3]
    assert [each["wide"] for each in found] == [False, False, True, False, False]
    assert client.get(f"{address}/charts?map=false").json() == found[1:]
    report = client.get(f"{address}/report").text
    for each in found:
        assert each["title"] in report
        assert len(each["alt"]) > 30


def test_an_unknown_sweep_is_not_found(client: TestClient) -> None:
    answer = client.get(f"/v1/sweeps/{uuid4()}/charts")
    assert (answer.status_code, answer.json()["code"]) == (404, "sweep_not_found")


def test_the_same_results_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot, drawn = grid_snapshot(texts=100, name="another"), []
    draw = figures._draw_charts

    def counted(snapshot: SweepSnapshot) -> list[Chart]:
        drawn.append(snapshot)
        return draw(snapshot)

    monkeypatch.setattr(figures, "_draw_charts", counted)
    first = figures.sweep_charts(snapshot)
    assert figures.sweep_charts(grid_snapshot(texts=100, name="more", state="running")) == first
    assert len(drawn) == 1
    figures.sweep_charts(make_snapshot(*snapshot.trials[:20]))
    assert len(drawn) == 2


def test_another_score_gives_another_version() -> None:
    one, two = (
        make_snapshot(make_trial(1, metrics={"validation": {"accuracy": each}}))
        for each in (0.5, 0.6)
    )
    assert figures.charts_digest(one) != figures.charts_digest(two)
