"""Curves for plotting: complete, downsampled, as sparklines, and joined to the event stream."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import insert
from starlette.testclient import TestClient

from app.database.engines import Database
from app.jobs import repository
from app.jobs.results import curves
from app.queue.tables import MetricPoint
from app.queue.transitions import Cancelled
from tests.app.jobs.fake_worker import FakeWorker
from tests.app.jobs.stream_listener import parse
from tests.job_rows import update_job

Submit = Callable[..., dict[str, Any]]
Series = Mapping[tuple[str, str], Sequence[tuple[int, float | None]]]


@pytest.fixture
def draw(submit: Submit, database: Database) -> Callable[[Series], str]:
    """Return a function that creates a job with these curves."""

    def add(series: Series) -> str:
        job_id: str = submit()["id"]
        rows = [
            {
                "job_id": UUID(job_id), "attempt": 1, "split": split, "name": name, "step": step,
                "value": value, "nonfinite": value is None, "at": 0.0,
            }
            for (split, name), points in series.items()
            for step, value in points
        ]  # fmt: skip
        numbered = [{**row, "seq": seq} for seq, row in enumerate(rows, start=2)]
        with database.write() as session:
            if numbered:
                session.execute(insert(MetricPoint), numbered)
        newest = max((step for points in series.values() for step, _ in points), default=0)
        update_job(database, UUID(job_id), step=newest, stream_seq=1 + len(rows))
        return job_id

    return add


def read(client: TestClient, job_id: str, query: str = "") -> dict[tuple[str, str], dict[str, Any]]:
    answer = client.get(f"/v1/jobs/{job_id}/curves{query}")
    assert answer.status_code == 200, answer.text
    return {(curve["split"], curve["name"]): curve for curve in answer.json()["data"]}


def test_a_short_curve_is_returned_unchanged(client: TestClient, draw: Any) -> None:
    loss = [(10, 0.1 + 0.2), (20, None), (35, 1 / 3), (1000, -0.5)]
    job_id = draw({("train", "loss"): loss, ("validation", "accuracy"): [(50, 0.875)]})
    found = read(client, job_id, "?points=4")
    assert list(found) == [("train", "loss"), ("validation", "accuracy")]
    curve = found["train", "loss"]
    assert list(zip(curve["steps"], curve["values"], strict=True)) == loss
    assert (curve["points"], curve["low"], curve["high"]) == (4, None, None)
    assert found["validation", "accuracy"]["values"] == [0.875]


def test_a_long_curve_is_downsampled_without_losing_peaks(client: TestClient, draw: Any) -> None:
    values = np.random.default_rng(0).normal(size=1037)
    values[500] = 99.0
    steps = range(3, 3 + len(values))
    job_id = draw({("train", "loss"): list(zip(steps, values.tolist(), strict=True))})
    curve = read(client, job_id, "?points=100")["train", "loss"]
    assert curve["points"] == 1037
    pieces = [values[i : i + 11] for i in range(0, len(values), 11)]
    assert len(pieces) <= 100
    assert curve["steps"] == [*range(13, 1037, 11), 1039]
    assert curve["values"] == pytest.approx([piece.mean() for piece in pieces])
    assert curve["low"] == [piece.min() for piece in pieces]
    assert curve["high"] == [piece.max() for piece in pieces]
    assert max(curve["high"]) == 99.0


def test_a_non_finite_value_stays_null_when_downsampled(client: TestClient, draw: Any) -> None:
    points = [(step, None if step == 57 else float(step)) for step in range(100)]
    curve = read(client, draw({("train", "loss"): points}), "?points=10")["train", "loss"]
    assert curve["values"] == [4.5, 14.5, 24.5, 34.5, 44.5, None, 64.5, 74.5, 84.5, 94.5]
    assert (curve["low"][5], curve["high"][5]) == (50.0, 59.0)


def test_each_curve_is_downsampled_separately(client: TestClient, draw: Any) -> None:
    accuracy = [(step, step / 1000) for step in (100, 101, 102, 999)]
    loss = [(step, 1.0) for step in range(1000)]
    found = read(
        client, draw({("train", "loss"): loss, ("test", "accuracy"): accuracy}), "?points=50"
    )
    assert len(found["train", "loss"]["steps"]) == 50
    assert found["test", "accuracy"]["steps"] == [100, 101, 102, 999]


def test_curves_are_chosen_by_name(client: TestClient, draw: Any) -> None:
    job_id = draw({("train", name): [(1, 1.0)] for name in ("loss", "learning_rate", "grad_norm")})
    assert set(read(client, job_id, "?name=loss&name=grad_norm")) == {
        ("train", "loss"), ("train", "grad_norm"),
    }  # fmt: skip
    assert read(client, job_id, "?name=accuracy") == {}


@pytest.mark.parametrize("query", ["points=1", "points=10001", "points=x", "name="])
def test_invalid_curve_queries_are_rejected(client: TestClient, draw: Any, query: str) -> None:
    answer = client.get(f"/v1/jobs/{draw({})}/curves?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


def test_curves_of_an_unknown_job_are_not_found(client: TestClient) -> None:
    answer = client.get("/v1/jobs/0198c0de-0000-7000-8000-000000000000/curves")
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


def test_the_stream_continues_where_the_curves_end(
    client: TestClient, submit: Submit, worker: FakeWorker
) -> None:
    """No gap and no duplicate point; `Last-Event-ID` takes precedence over `after`."""
    job_id = submit()["id"]
    lease = worker.claim().lease
    worker.log(lease, step=1, points={"loss": 0.9})
    answer = client.get(f"/v1/jobs/{job_id}/curves").json()
    assert [curve["steps"] for curve in answer["data"]] == [[1]]
    worker.log(lease, step=2, points={"loss": 0.5})
    client.post(f"/v1/jobs/{job_id}/cancel")

    def steps(**headers: str) -> list[int]:
        with client.stream(
            "GET", f"/v1/jobs/{job_id}/stream?after={answer['seq']}", headers=headers
        ) as live:
            text = "".join(live.iter_text())
        return [m.data["step"] for m in parse(text) if m.event == "metric"]

    worker.finish(lease, Cancelled())
    assert steps() == [2]
    assert steps(**{"Last-Event-ID": "0"}) == [1, 2]


def test_sparklines_show_the_first_and_the_newest_point_of_each_run(
    client: TestClient, draw: Any, database: Database, submit: Submit
) -> None:
    """Short runs are complete; non-finite values are left out."""
    long = [(step, 5.0 / step) for step in range(1, 5001)]
    ids = [
        draw({("train", "loss"): long, ("train", "grad_norm"): [(1, 7.0)]}),
        draw(
            {("train", "loss"): [(10, 3.0), (20, None), (30, 1.0)], ("test", "loss"): [(30, 9.0)]}
        ),
        draw({("train", "loss"): [(1, 2.0)]}),
        submit()["id"],
    ]
    with database.read() as session:
        jobs = [repository.get_training_job(session, UUID(each)) for each in ids]
        found = curves.sample_loss_curves(session, jobs)
    first, second, third, none = (found.get(UUID(each)) for each in ids)
    assert first is not None
    assert len(first) == curves.SPARKLINE_POINTS
    assert (first[0], first[-1]) == (5.0, 0.001)
    assert first == sorted(first, reverse=True)
    assert set(first) <= {value for _, value in long}
    assert (second, third, none) == ([3.0, 1.0], [2.0], None)
