"""The pictures of a sweep over HTTP."""

from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from app.charts import figures
from app.charts.style import Picture
from app.resources import Resources
from app.sweeps.snapshot import Board
from tests.app.sweeps.conftest import JOB, SPACE
from tests.app.sweeps.stand_in import StandIn
from tests.boards import board, cell, grid


def test_pictures_are_those_of_the_report(client: TestClient, resources: Resources) -> None:
    sweep_id = client.post("/v1/sweeps", json={"job": JOB, "space": SPACE}).json()["id"]
    address = f"/v1/sweeps/{sweep_id}"
    assert client.get(f"{address}/pictures").json() == []  # nothing has run to its end
    StandIn(resources).work()
    found = client.get(f"{address}/pictures").json()
    kinds = [each["figure"]["data"][0]["type"] for each in found]
    assert kinds == ["heatmap", "bar", *["scatter"] * 3]
    assert [each["wide"] for each in found] == [False, False, True, False, False]
    assert client.get(f"{address}/pictures?map=false").json() == found[1:]
    report = client.get(f"{address}/report").text
    for each in found:
        assert each["title"] in report
        assert len(each["alt"]) > 30


def test_an_unknown_sweep_is_told(client: TestClient) -> None:
    answer = client.get(f"/v1/sweeps/{uuid4()}/pictures")
    assert (answer.status_code, answer.json()["code"]) == (404, "sweep_not_found")


def test_the_same_results_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, drawn = grid(texts=100, name="another"), []
    draw = figures._draw

    def counted(each: Board) -> list[Picture]:
        drawn.append(each)
        return draw(each)

    monkeypatch.setattr(figures, "_draw", counted)
    first = figures.of(whole)
    assert figures.of(grid(texts=100, name="more", state="running")) == first
    assert len(drawn) == 1
    figures.of(board(*whole.cells[:20]))
    assert len(drawn) == 2


def test_another_score_is_another_version() -> None:
    one, two = (board(cell(1, figures={"validation": {"accuracy": each}})) for each in (0.5, 0.6))
    assert figures.version_of(one) != figures.version_of(two)
