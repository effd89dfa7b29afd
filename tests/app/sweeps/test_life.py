"""The life of a sweep: its cells get jobs, and go on whatever happens to it."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.queue.tables import Job
from app.resources import Resources
from app.sweeps import add_trials
from app.sweeps.tables import Sweep, SweepCell
from tests.app.sweeps.conftest import JOB, SPACE, Look, Start
from tests.app.sweeps.stand_in import StandIn, share

Cells = Callable[[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


# What these look at is decided in Python; the other tests make their statements on both databases.
one_will_do = pytest.mark.parametrize(
    "database_kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
)


def jobs(resources: Resources) -> int:
    with resources.database.read() as session:
        return session.scalars(select(func.count()).select_from(Job)).one()


def settings(worker: StandIn) -> list[tuple[float, int]]:
    return [(each.spec["method"]["alpha"], each.spec["method"]["r"]) for each in worker.ran]


def test_a_grid_runs_every_cell_once_and_finishes(
    start: Start, look: Look, cells: Cells, worker: StandIn, resources: Resources
) -> None:
    sweep = start(name="first")
    assert (sweep["state"], sweep["cells"]) == ("running", 12)
    assert sweep["counts"]["queued"] == 1  # one for each slot, so that other jobs get their turn
    assert worker.work() == 12
    after = look(sweep)
    assert after["state"] == "finished"
    assert after["counts"] == {"waiting": 0, "queued": 0, "running": 0, "succeeded": 12,
                               "failed": 0, "cancelled": 0}  # fmt: skip
    assert len(set(settings(worker))) == 12
    assert [cell["number"] for cell in cells(sweep)] == list(range(1, 13))
    assert [list(cell["settings"]) for cell in cells(sweep)] == [list(SPACE)] * 12
    assert {cell["share"] for cell in cells(sweep)} == {1.0}
    assert jobs(resources) == 12


def test_the_winner_is_chosen_on_validation_and_told_with_its_test_figures(
    start: Start, look: Look, worker: StandIn
) -> None:
    sweep = start()
    assert look(sweep)["verdict"] is None
    worker.work()
    verdict = look(sweep)["verdict"]
    assert verdict["winner"]["settings"] == {"method.alpha": 16, "method.r": 8}
    assert verdict["winner"]["test"]["texts"] == 200
    # r=2 and r=4 answer one text of 200 less: that is noise.
    assert verdict["near"] == [7, 8, 9]
    assert verdict["cheapest"]["settings"] == {"method.alpha": 16, "method.r": 2}
    assert verdict["test"]["low"] < 0.0 < verdict["test"]["high"]


def test_halving_goes_on_from_checkpoints_and_ends_with_a_few(
    start: Start, look: Look, cells: Cells, worker: StandIn
) -> None:
    halving = {"type": "halving", "eta": 3, "keep": 2, "validation_texts": 50}
    sweep = start(strategy=halving)
    worker.work()
    assert look(sweep)["state"] == "finished"
    shares = [round(share(each.spec), 3) for each in worker.ran]
    assert shares == [0.111] * 12 + [0.333] * 4 + [1.0] * 2
    by_job = {each.lease.job_id: each for each in worker.ran}
    for each in worker.ran[12:]:
        assert each.checkpoint is not None
        before = by_job[each.checkpoint.job_id]
        assert share(before.spec) < share(each.spec)
        assert before.spec["method"] == each.spec["method"]
    assert worker.ran[0].spec["trial"] == {"share": pytest.approx(1 / 9), "validation_texts": 50}
    whole = [cell for cell in cells(sweep) if cell["share"] == 1.0]
    assert [cell["settings"]["method.alpha"] for cell in whole] == [16, 16]
    assert {cell["state"] for cell in cells(sweep)} == {"succeeded"}


def test_cells_that_are_known_are_not_run_again(
    start: Start, look: Look, cells: Cells, worker: StandIn, client: TestClient
) -> None:
    job = {**JOB, "method": {**JOB["method"], "alpha": 8, "r": 4}}  # type: ignore[dict-item]
    assert client.post("/v1/jobs", json=job).status_code == 202
    worker.work()
    first = start(space={"method.alpha": [8, 16], "method.r": [4]})
    assert worker.work() == 1
    second = start(space={"method.alpha": [4, 8, 16], "method.r": [4]}, objective="loss")
    assert worker.work() == 1
    assert look(second)["state"] == "finished"
    assert [cell["reused"] for cell in cells(first)] == [True, False]
    assert [cell["reused"] for cell in cells(second)] == [False, True, True]
    third = start(space={"method.alpha": [4, 8, 16], "method.r": [4]})
    assert third["state"] == "finished"
    plan = client.post("/v1/sweeps?dry_run=true", json={"job": JOB, "space": SPACE}).json()
    assert (plan["cells"], plan["known"]) == (12, 3)


@one_will_do
def test_a_grid_after_halving_goes_on_from_what_halving_has_run(
    start: Start, worker: StandIn
) -> None:
    start(strategy={"type": "halving", "eta": 3, "keep": 1})
    worker.work()
    ran = len(worker.ran)
    start()
    assert worker.work() == 10  # whole runs of two are known
    assert all(each.checkpoint is not None for each in worker.ran[ran:])


@one_will_do
def test_a_sweep_whose_train_figures_are_missing_runs_again(start: Start, worker: StandIn) -> None:
    start()
    worker.work()
    start(job={**JOB, "result": {"train_figures": True}})
    assert worker.work() == 12


def test_two_sweeps_share_a_cell_that_is_under_way(
    start: Start, look: Look, worker: StandIn, client: TestClient
) -> None:
    one = start(space={"method.alpha": [8]})
    two = start(space={"method.alpha": [8]}, name="other")
    client.post(f"/v1/sweeps/{one['id']}/stop")  # the other one still wants it
    assert worker.work() == 1
    assert look(two)["state"] == "finished"
    assert look(one)["state"] == "stopped"


def test_only_failed_cells_are_retried(
    start: Start, look: Look, cells: Cells, worker: StandIn, client: TestClient
) -> None:
    worker.fails = lambda spec: spec["method"]["alpha"] == 32
    sweep = start()
    worker.work()
    after = look(sweep)
    assert (after["state"], after["counts"]["failed"]) == ("finished", 3)
    assert [cell["error"] for cell in cells(sweep)][-1] == "The loss is NaN."
    worker.fails = lambda _: False
    retried = client.post(f"/v1/sweeps/{sweep['id']}/retry").json()
    assert (retried["state"], retried["counts"]["succeeded"]) == ("running", 9)
    assert worker.work() == 3
    assert look(sweep)["counts"]["succeeded"] == 12


def test_a_pause_lets_what_runs_go_on_and_nothing_else(
    start: Start, look: Look, worker: StandIn, client: TestClient
) -> None:
    sweep = start(parallel=3)
    held = worker.take()
    assert held is not None
    paused = client.post(f"/v1/sweeps/{sweep['id']}/pause").json()
    assert paused["counts"] == {"waiting": 11, "queued": 0, "running": 1, "succeeded": 0,
                                "failed": 0, "cancelled": 0}  # fmt: skip
    worker.end(held)
    assert worker.work() == 0
    assert look(sweep)["counts"]["succeeded"] == 1
    client.post(f"/v1/sweeps/{sweep['id']}/resume")
    assert worker.work() == 11
    assert look(sweep)["state"] == "finished"


def test_what_was_stopped_goes_on_from_its_checkpoint(
    start: Start, look: Look, worker: StandIn, client: TestClient
) -> None:
    sweep = start()
    held = worker.take()
    assert held is not None
    stopped = client.post(f"/v1/sweeps/{sweep['id']}/stop").json()
    assert stopped["counts"]["waiting"] == 12
    resumed = client.post(f"/v1/sweeps/{sweep['id']}/resume").json()
    assert resumed["counts"]["waiting"] == 12  # the one that is being stopped is waited for
    worker.stop(held)
    again = worker.take()
    assert again is not None
    assert again.checkpoint is not None
    assert again.checkpoint.job_id == held.lease.job_id
    assert again.spec == held.spec
    worker.end(again)
    assert worker.work() == 11
    assert look(sweep)["state"] == "finished"


@one_will_do
def test_a_grid_grows_by_values_and_a_sample_by_cells(
    start: Start, look: Look, worker: StandIn, client: TestClient
) -> None:
    grid = start()
    worker.work()
    body = {"space": {"method.r": [8, 16]}}
    grown = client.post(f"/v1/sweeps/{grid['id']}/extend", json=body).json()
    assert (grown["state"], grown["cells"]) == ("running", 16)
    assert worker.work() == 4
    sample = start(
        strategy={"type": "random", "cells": 5}, space={"optim.epochs": {"low": 3, "high": 99}}
    )
    worker.work()
    assert client.post(f"/v1/sweeps/{sample['id']}/extend", json={"cells": 8}).status_code == 200
    assert worker.work() == 3
    assert look(sample)["counts"]["succeeded"] == 8


@one_will_do
def test_a_model_based_search_goes_on_batch_by_batch(
    start: Start, look: Look, worker: StandIn, client: TestClient
) -> None:
    space = {"method.alpha": {"low": 1.0, "high": 64.0, "log": True}, "method.r": [2, 4]}
    sweep = start(strategy={"type": "tpe", "cells": 7, "batch": 3}, space=space, parallel=9)
    assert sweep["cells"] == 3
    worker.work(2)
    assert look(sweep)["cells"] == 3  # the batch is not through
    worker.work()
    assert (look(sweep)["state"], look(sweep)["cells"]) == ("finished", 7)
    client.post(f"/v1/sweeps/{sweep['id']}/extend", json={"cells": 9})
    worker.work()
    assert look(sweep)["cells"] == 9


def test_whoever_died_before_he_could_go_on_is_replaced(
    start: Start, look: Look, worker: StandIn, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = start()
    with monkeypatch.context() as patch:
        patch.setattr(add_trials, "after", lambda *_: None)
        assert worker.work() == 1  # nobody went on
    add_trials.all_of_them(resources)
    assert worker.work() == 11
    assert look(sweep)["state"] == "finished"


@one_will_do
def test_a_job_that_was_submitted_later_gets_its_turn(
    start: Start, worker: StandIn, client: TestClient
) -> None:
    start()
    single = client.post("/v1/jobs", json=JOB).json()["id"]
    worker.work(3)
    assert single in [str(each.lease.job_id) for each in worker.ran]


def test_deleting_takes_the_jobs_that_no_other_sweep_uses(
    start: Start, worker: StandIn, client: TestClient, resources: Resources
) -> None:
    one = start(space={"method.alpha": [4, 8]})
    running = client.delete(f"/v1/sweeps/{one['id']}")
    assert (running.status_code, running.json()["code"]) == (409, "sweep_not_finished")
    worker.work()
    start(space={"method.alpha": [8, 16]})
    worker.work()
    assert client.delete(f"/v1/sweeps/{one['id']}").status_code == 204
    assert jobs(resources) == 2
    with resources.database.read() as session:
        assert session.scalars(select(func.count()).select_from(Sweep)).one() == 1
        assert session.scalars(select(func.count()).select_from(SweepCell)).one() == 2
    assert client.get(f"/v1/sweeps/{one['id']}").json()["code"] == "sweep_not_found"


def test_the_model_of_a_cell_is_made_from_its_last_checkpoint(
    start: Start, worker: StandIn, client: TestClient, resources: Resources
) -> None:
    sweep = start(strategy={"type": "halving", "eta": 3, "keep": 1})
    nothing = client.post(f"/v1/sweeps/{sweep['id']}/promote", json={"model": "best"})
    assert (nothing.status_code, nothing.json()["code"]) == (409, "nothing_to_promote")
    worker.work()
    made = client.post(f"/v1/sweeps/{sweep['id']}/promote", json={"model": "best"})
    assert made.status_code == 202
    assert made.json()["register_as"] == "best"
    claimed = worker.take()
    assert claimed is not None
    assert (claimed.register_as, claimed.promote_to) == ("best", "production")
    assert (claimed.spec["trial"], claimed.spec["result"]["model"]) == (None, True)
    assert claimed.checkpoint is not None
    assert claimed.checkpoint.job_id == UUID(made.json()["continues"])
    by_number = client.post(
        f"/v1/sweeps/{sweep['id']}/promote", json={"model": "best", "cell": 1, "alias": None}
    )
    assert by_number.json()["spec"]["method"]["alpha"] == 4
    gone = client.post(f"/v1/sweeps/{sweep['id']}/promote", json={"model": "best", "cell": 99})
    assert (gone.status_code, gone.json()["code"]) == (404, "cell_not_found")


def test_a_finished_sweep_is_neither_paused_nor_stopped_nor_resumed(
    start: Start, worker: StandIn, client: TestClient
) -> None:
    sweep = start(space={"method.alpha": [8]})
    worker.work()
    for verb in ("pause", "stop", "resume"):
        refused = client.post(f"/v1/sweeps/{sweep['id']}/{verb}")
        assert (refused.status_code, refused.json()["code"]) == (409, "illegal_sweep_move"), verb


def test_pages_filters_and_files(start: Start, worker: StandIn, client: TestClient) -> None:
    one, two = start(name="one"), start(name="two", space={"method.alpha": [8]})
    worker.work()
    page = client.get("/v1/sweeps?limit=1").json()
    assert [each["name"] for each in page["data"]] == ["two"]
    rest = client.get(f"/v1/sweeps?limit=1&after={page['next']}").json()
    assert [each["id"] for each in rest["data"]] == [one["id"]]
    assert client.get("/v1/sweeps?state=paused").json()["data"] == []
    table = client.get(f"/v1/sweeps/{one['id']}/results")
    assert table.headers["Content-Type"].startswith("text/csv")
    assert len(table.text.splitlines()) == 13
    assert table.text.startswith("number,state,method.alpha,method.r,")  # as they were sent
    report = client.get(f"/v1/sweeps/{two['id']}/report")
    assert report.headers["Content-Security-Policy"].startswith("sandbox allow-scripts")
    assert "two" in report.text


def test_fields_keep_their_order(start: Start, cells: Cells, look: Look) -> None:
    """PostgreSQL would have the short ones first."""
    space = {"optim.learning_rate": [1e-3], "method.r": [2], "data.max_length": [64, 32]}
    sweep = start(space=space)
    assert list(look(sweep)["space"]) == list(space)
    assert [list(cell["settings"]) for cell in cells(sweep)] == [list(space)] * 2


def test_the_same_key_starts_one_sweep(start: Start, client: TestClient) -> None:
    sent = {"job": JOB, "space": SPACE}
    answers = [
        client.post("/v1/sweeps", json=sent, headers={"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert len(client.get("/v1/sweeps").json()["data"]) == 1


def test_a_cell_is_not_lost_with_its_workers_but_not_tried_for_ever(
    start: Start, look: Look, worker: StandIn
) -> None:
    sweep = start(space={"method.alpha": [8]})
    for _ in range(3):
        worker.give_up()
        assert look(sweep)["state"] == "running"
    worker.give_up()
    assert (look(sweep)["state"], look(sweep)["counts"]["failed"]) == ("finished", 1)


@one_will_do
def test_figures_of_a_rung_stand_until_the_next_one_has_ended(
    start: Start, cells: Cells, worker: StandIn
) -> None:
    sweep = start(strategy={"type": "halving", "eta": 3, "keep": 1}, space={"method.r": [2, 4, 8]})
    worker.work(3)
    told = {cell["number"]: cell for cell in cells(sweep)}
    assert (told[3]["state"], told[3]["figures"]["validation"]["accuracy"]) == ("queued", 0.908)
    assert "test" not in told[3]["figures"]


@one_will_do
def test_what_was_stopped_is_not_paused(start: Start, client: TestClient) -> None:
    sweep = start()
    assert client.post(f"/v1/sweeps/{sweep['id']}/pause").status_code == 200
    assert client.post(f"/v1/sweeps/{sweep['id']}/pause").status_code == 200
    assert client.post(f"/v1/sweeps/{sweep['id']}/stop").json()["state"] == "stopped"
    refused = client.post(f"/v1/sweeps/{sweep['id']}/pause")
    assert (refused.status_code, refused.json()["code"]) == (409, "illegal_sweep_move")
