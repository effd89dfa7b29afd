"""What could hang a sweep, lose a cell, or take one from another sweep."""

from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from app.queue.tables import Job
from app.resources import Resources
from app.sweeps import add_trials
from app.sweeps.tables import Sweep
from tests.app.sweeps.conftest import JOB, Look, Start
from tests.app.sweeps.stand_in import StandIn

ONE = {"method.alpha": [8]}
RATES = {"optim.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}


def test_a_cell_that_was_thought_of_and_cannot_run_does_not_stop_a_retry(
    start: Start, look: Look, worker: StandIn, client: TestClient
) -> None:
    """Each end of the space fits the base, both together do not."""
    space = {"method.r": [4, 385], "method.targets": [["query"], ["mlp"]]}
    refused = client.post("/v1/sweeps", json={"job": JOB, "space": space}).json()
    assert refused["code"] == "invalid_cells"
    blocks = {"method.layers": [[0], [1]], "base": ["minilm-l6"], "method.r": [2, 4]}
    sweep = start(space=blocks, strategy={"type": "tpe", "cells": 6, "batch": 2})
    worker.fails = lambda spec: spec["method"]["r"] == 4
    worker.work()
    worker.fails = lambda _: False
    again = client.post(f"/v1/sweeps/{sweep['id']}/retry")
    assert again.status_code == 200
    worker.work()
    assert look(sweep)["counts"]["failed"] == 0


def test_a_search_goes_on_in_a_space_that_became_another(
    start: Start, look: Look, worker: StandIn, client: TestClient
) -> None:
    sweep = start(space=RATES, strategy={"type": "tpe", "cells": 4, "batch": 2})
    worker.work()
    narrower = {"optim.learning_rate": {"low": 2e-4, "high": 3e-4}}
    body = {"space": narrower, "cells": 8}
    assert client.post(f"/v1/sweeps/{sweep['id']}/extend", json=body).status_code == 200
    worker.work()
    assert (look(sweep)["state"], look(sweep)["cells"]) == ("finished", 8)
    late = [each.spec["optim"]["learning_rate"] for each in worker.ran[4:]]
    assert all(2e-4 <= rate <= 3e-4 for rate in late)


def test_an_extension_of_a_search_is_tried_at_its_ends(
    start: Start, worker: StandIn, client: TestClient
) -> None:
    space = {"method.r": {"low": 1, "high": 8}}
    sweep = start(space=space, strategy={"type": "tpe", "cells": 2, "batch": 2})
    worker.work()
    body = {"space": {"method.r": {"low": 1, "high": 4000}}, "cells": 4}
    answer = client.post(f"/v1/sweeps/{sweep['id']}/extend", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cells")


def test_one_sweep_that_cannot_go_on_does_not_hold_up_the_others(
    start: Start, look: Look, worker: StandIn, resources: Resources,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    broken = start(space={"method.alpha": [4, 8]}, name="broken")
    other = start(space={"method.alpha": [16, 32]}, name="other")
    with resources.database.write() as session:
        session.get_one(Sweep, UUID(broken["id"])).strategy = {"type": "magic"}
        session.commit()
    with monkeypatch.context() as patch:
        patch.setattr(add_trials, "after", lambda *_: None)
        worker.work(2)
    for _ in range(3):
        add_trials.all_of_them(resources)
        worker.work()
    assert look(other)["state"] == "finished"


def test_a_stop_leaves_the_cell_of_a_paused_sweep_alone(
    start: Start, look: Look, worker: StandIn, client: TestClient
) -> None:
    one, two = start(space=ONE), start(space=ONE, name="two")
    held = worker.take()
    assert held is not None
    client.post(f"/v1/sweeps/{two['id']}/pause")
    client.post(f"/v1/sweeps/{one['id']}/stop")
    with worker.database.write() as session:
        assert session.get_one(Job, held.lease.job_id).cancel_requested_at is None
    worker.end(held)
    assert look(two)["counts"]["succeeded"] == 1


def test_a_job_of_somebody_else_that_is_cancelled_is_no_end_of_the_cell(
    start: Start, look: Look, worker: StandIn, client: TestClient
) -> None:
    single = client.post("/v1/jobs", json={**JOB, "method": {**JOB["method"], "alpha": 8}}).json()  # type: ignore[dict-item]
    sweep = start(space=ONE)
    assert sweep["counts"]["queued"] == 1
    client.post(f"/v1/jobs/{single['id']}/cancel")
    add_trials.all_of_them(worker.resources)
    assert worker.work() == 1
    assert look(sweep)["counts"]["succeeded"] == 1


@pytest.mark.parametrize(
    "other", [{"runtime": {"device": "cuda"}}, {"time_limit_seconds": 1.0}], ids=["lane", "limit"]
)
def test_nobody_waits_for_a_job_that_may_never_end_well(
    other: dict[str, Any], start: Start, look: Look, worker: StandIn, client: TestClient
) -> None:
    body = {**JOB, "method": {**JOB["method"], "alpha": 8}, **other}  # type: ignore[dict-item]
    single = client.post("/v1/jobs", json=body).json()
    sweep = start(space=ONE)
    worker.work()
    assert look(sweep)["state"] == "finished"
    ran = [str(each.lease.job_id) for each in worker.ran]
    assert [each for each in ran if each != single["id"]]


def test_a_job_that_outlives_its_sweep_goes_with_the_last_one(
    start: Start, worker: StandIn, client: TestClient
) -> None:
    one, two = start(space=ONE), start(space=ONE, name="two")
    worker.work()
    client.delete(f"/v1/sweeps/{one['id']}")
    job_id = worker.ran[0].lease.job_id
    assert client.get(f"/v1/jobs/{job_id}").json()["sweep_id"] == two["id"]
    client.delete(f"/v1/sweeps/{two['id']}")
    assert client.get(f"/v1/jobs/{job_id}").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {"space": {"runtime.seed": {"low": 1, "high": 10**400}}},
        {"space": {"runtime.seed": {"low": 10**400, "high": 1}}},
        {"strategy": {"type": "halving", "first_share": 1e-320}},
        {"strategy": {"type": "halving", "first_share": 1e-300}},
    ],
)
def test_numbers_beyond_all_bounds(body: dict[str, Any], client: TestClient) -> None:
    sent = {"job": JOB, "space": ONE, **body}
    answer = client.post("/v1/sweeps", json=sent)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


def test_a_random_search_over_ends_with_many_digits_stays_within(
    start: Start, worker: StandIn
) -> None:
    ends = {"low": 0.3333333333, "high": 0.3333333334}
    start(space={"optim.head_dropout": ends}, strategy={"type": "tpe", "cells": 6, "batch": 2})
    worker.work()
    drawn = [each.spec["optim"]["head_dropout"] for each in worker.ran]
    assert all(ends["low"] <= each <= ends["high"] for each in drawn)
