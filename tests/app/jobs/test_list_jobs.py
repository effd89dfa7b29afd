"""Lists, curves and events: pages, filters, queue positions."""

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy import event
from starlette.testclient import TestClient

from app.database.base import now
from app.database.engines import Database
from app.jobs import repository
from app.queue.enums import JobState
from app.queue.transitions import PermanentFailure
from tests.app.jobs.fake_worker import FakeWorker
from tests.job_rows import update_job

Submit = Callable[..., dict[str, Any]]


def pages(client: TestClient, query: str) -> list[list[dict[str, Any]]]:
    found, after = [], ""
    while True:
        page = client.get(f"/v1/jobs?{query}{after}").json()
        found.append(page["data"])
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


def test_paging_shows_every_job_once_the_newest_first(client: TestClient, submit: Submit) -> None:
    made = [submit(name=str(i))["id"] for i in range(25)]
    found = pages(client, "limit=10")
    assert [len(page) for page in found] == [10, 10, 5]
    assert [job["id"] for page in found for job in page] == made[::-1]


def test_a_job_created_between_two_pages_shifts_nothing(client: TestClient, submit: Submit) -> None:
    made = [submit()["id"] for _ in range(4)]
    first = client.get("/v1/jobs?limit=2").json()
    submit()
    second = client.get(f"/v1/jobs?limit=2&after={first['next']}").json()
    assert [job["id"] for job in first["data"] + second["data"]] == made[::-1]
    assert second["next"] is None


def test_a_list_neither_shows_nor_reads_complete_results(
    client: TestClient, app: FastAPI, submit: Submit, worker: FakeWorker, database: Database
) -> None:
    succeeded, failed = UUID(submit()["id"]), UUID(submit()["id"])
    labels = [f"label {n}" for n in range(1000)]
    summary = {"labels": labels, "test": {"accuracy": 0.75}, "model_version": "films:2",
               "trainable_parameters": 10, "total_parameters": 20}  # fmt: skip
    ended = {"finished_at": now(), "attempt": 1}
    update_job(database, succeeded, state=JobState.SUCCEEDED, summary=summary, **ended)
    detail = {"error_code": "x", "error_message": "No.", "error_detail": {"labels": labels}}
    update_job(database, failed, state=JobState.FAILED, **detail, **ended)
    statements: list[str] = []

    def sent(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    event.listen(app.state.resources.database.read_engine, "before_cursor_execute", sent)
    answer = client.get("/v1/jobs")
    bad, good = answer.json()["data"]
    assert client.get("/").status_code == 200
    assert (good["accuracy"], good["model_version"]) == (0.75, "films:2")
    assert good["parameters"] == {"trainable": 10, "total": 20, "exact": True}
    assert bad["error"] == {"code": "x", "message": "No."}
    assert "summary" not in good
    assert "label 9" not in answer.text
    whole = re.compile(r"(?<!JSON_EXTRACT\()jobs\.(summary|error_detail)\b")
    assert [each for each in statements if whole.search(each)] == []
    assert client.get(f"/v1/jobs/{succeeded}").json()["summary"] == summary
    assert client.get(f"/v1/jobs/{failed}").json()["error"]["detail"] == {"labels": labels}


def test_a_search_continues_where_it_stopped(
    client: TestClient, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository, "MAX_SCANNED", 3)
    made = [submit(name="films" if n in (0, 5) else "mails")["id"] for n in range(8)]
    found = pages(client, "search=film")
    assert [[job["id"] for job in page] for page in found] == [[made[5]], [], [made[0]]]
    page = client.get("/?q=nothing").text
    assert "No matches among the jobs searched so far" in page
    assert 'rel="next"' in page


def test_a_search_matches_the_data_of_splits_but_not_their_names(
    client: TestClient, submit: Submit, database: Database
) -> None:
    job = submit()
    source = {"train": "reviews:1", "validation": "letters:3", "test": "mails:2"}
    spec = {**job["spec"], "data": {**job["spec"]["data"], "source": source}}
    update_job(database, UUID(job["id"]), spec=spec)
    for text in ("Reviews", "letters:3", "mails:2"):
        assert [[each["id"] for each in page] for page in pages(client, f"search={text}")] == [
            [job["id"]]
        ]
    for split in source:
        assert pages(client, f"search={split}") == [[]]


def test_jobs_are_found_by_state_and_method(
    client: TestClient, submit: Submit, worker: FakeWorker
) -> None:
    running = submit(priority=1)["id"]
    full = submit(method={"type": "full"})["id"]
    queued = submit()["id"]
    worker.claim()

    def ids(query: str) -> list[str]:
        return [job["id"] for job in client.get(f"/v1/jobs?{query}").json()["data"]]

    assert ids("state=running") == [running]
    assert ids("state=queued") == [queued, full]
    assert ids("method=full") == [full]
    assert ids("state=queued&method=lora") == [queued]
    assert ids("state=failed") == []


def test_queue_positions_follow_priority_then_age(
    client: TestClient, submit: Submit, worker: FakeWorker
) -> None:
    first, second = submit()["id"], submit()["id"]
    urgent = submit(priority=5)["id"]
    later = submit(priority=-5)["id"]

    def places() -> dict[str, int | None]:
        jobs = client.get("/v1/jobs").json()["data"]
        return {job["id"]: job["queue_position"] for job in jobs}

    assert places() == {urgent: 1, first: 2, second: 3, later: 4}
    assert str(worker.claim().lease.job_id) == urgent
    assert places() == {urgent: None, first: 1, second: 2, later: 3}
    assert client.get(f"/v1/jobs/{second}").json()["queue_position"] == 2


def test_a_queue_position_counts_all_jobs_that_compete_for_the_device(
    client: TestClient, submit: Submit
) -> None:
    places = [
        submit(runtime={"device": device})["queue_position"]
        for device in ("cpu", "cuda", "auto", "cpu", "cuda", "auto")
    ]
    assert places == [1, 1, 3, 3, 3, 6]
    for device, place in (("cpu", 5), ("cuda", 5), ("auto", 7)):
        body = {"method": {"type": "lora"}, "runtime": {"device": device}}
        plan = client.post("/v1/jobs?dry_run=true", json=body).json()
        assert plan["queue_position"] == place


def test_metric_points_are_filtered_by_split_name_and_number(
    client: TestClient, submit: Submit, worker: FakeWorker
) -> None:
    url = f"/v1/jobs/{submit()['id']}/metrics"
    lease = worker.claim().lease
    for step in (1, 2, 3):
        last = worker.log(lease, step=step, points={"loss": 1 / step, "grad_norm": None})

    def read(query: str = "") -> list[tuple[str, int, float | None]]:
        return [(p["name"], p["step"], p["value"]) for p in client.get(url + query).json()["data"]]

    assert read("?name=loss") == [("loss", 1, 1.0), ("loss", 2, 0.5), ("loss", 3, 1 / 3)]
    assert len(read()) == 6
    assert read("?split=validation") == []
    assert read(f"?after={last - 1}") == [("grad_norm", 3, None)]
    first = client.get(url).json()["data"][1]
    assert (first["value"], first["nonfinite"], first["epoch"], first["attempt"]) == (
        None, True, 0.1, 1,
    )  # fmt: skip


def test_metrics_and_events_are_paginated(
    client: TestClient, submit: Submit, worker: FakeWorker
) -> None:
    job_id = submit()["id"]
    lease = worker.claim().lease
    for step in range(1, 6):
        worker.log(lease, step=step, points={"loss": 1.0})
        worker.note(lease, f"note {step}", step=step)
    for kind, expected in (("metrics", 5), ("events", 7)):
        seen: list[int] = []
        after: int | None = 0
        while after is not None:
            piece = client.get(f"/v1/jobs/{job_id}/{kind}?limit=2&after={after}").json()
            assert len(piece["data"]) <= 2
            seen += [item["seq"] for item in piece["data"]]
            after = piece["next"]
        assert len(seen) == expected
        assert seen == sorted(set(seen))


def test_a_running_job_shows_its_progress_and_a_failed_one_its_error(
    client: TestClient, submit: Submit, worker: FakeWorker
) -> None:
    url = f"/v1/jobs/{submit()['id']}"
    lease = worker.claim().lease
    worker.log(lease, step=5, points={"loss": 1.0})
    job = client.get(url).json()
    assert (job["state"], job["attempt"], job["step"], job["progress"]) == ("running", 1, 5, 0.25)
    assert job["started_at"] >= job["created_at"]

    worker.finish(lease, PermanentFailure("non_finite", "The loss became nan.", {"step": 5}))
    job = client.get(url).json()
    assert (job["state"], job["progress"]) == ("failed", 0.25)
    assert job["error"] == {
        "code": "non_finite", "message": "The loss became nan.", "detail": {"step": 5},
    }  # fmt: skip
    assert job["finished_at"] >= job["started_at"]
