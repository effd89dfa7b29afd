"""Creating jobs: what is stored, what is returned, and that a dry run stores nothing."""

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy import func, select
from starlette.testclient import TestClient

from app.auth.tables import LOCAL_KEY_ID
from app.database.engines import Database
from app.queue.dispatch import JobTask, PollOnlyNotifier
from app.queue.tables import Job, JobEvent
from app.resources import Resources
from tests.job_rows import get_job, update_job

LORA: dict[str, Any] = {"method": {"type": "lora"}}
Submit = Callable[..., dict[str, Any]]


def stored(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, UUID(job_id))


def test_only_the_method_is_required(client: TestClient) -> None:
    answer = client.post("/v1/jobs", json=LORA)

    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert client.get(answer.headers["Location"]).json() == job
    assert (job["state"], job["base"], job["method"]) == ("queued", "minilm-l6", "lora")
    assert job["spec"]["data"]["source"] == "rotten-tomatoes"
    assert job["parameters"] == {"trainable": 480_386, "total": 24_819_458, "exact": True}
    assert job["queue_position"] == 1
    assert 30 < job["estimated_seconds"] < 600
    assert job["created_at"].endswith("Z")
    assert [job[name] for name in ("error", "summary", "artifact_id", "model_version")] == [
        None
    ] * 4
    assert (job["waiting"], job["time_limit_seconds"]) == (None, None)
    assert (job["failures_counted"], job["resume_exact"]) == (0, True)


def test_the_callers_fields_are_stored(submit: Submit) -> None:
    job = submit(
        name="Café first",
        metadata={"ticket": "42", "empty": ""},
        priority=7,
        register_as="sentiment",
        method={"type": "lora", "r": 4, "targets": ["query", "mlp"], "layers": [0, 5]},
        runtime={"seed": 3},
    )
    assert job["name"] == "Café first"
    assert job["metadata"] == {"ticket": "42", "empty": ""}
    assert (job["priority"], job["register_as"]) == (7, "sentiment")
    assert job["spec"]["method"]["layers"] == [0, 5]
    assert job["spec"]["runtime"]["seed"] == 3


def test_a_time_limit_is_stored(submit: Submit, database: Database) -> None:
    job = submit(time_limit_seconds=90)
    assert job["time_limit_seconds"] == 90
    assert stored(database, job["id"]).time_limit_seconds == 90
    assert "time_limit_seconds" not in job["spec"]


@pytest.mark.parametrize("seconds", [0, -1, "90", True, 1e999])
def test_a_time_limit_must_be_positive(client: TestClient, seconds: Any) -> None:
    body = json.dumps({**LORA, "time_limit_seconds": seconds})
    answer = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")


def test_a_job_shows_what_it_waits_for(
    client: TestClient, submit: Submit, database: Database
) -> None:
    job_id = submit()["id"]
    waiting = {"waiting_code": "storage_unavailable", "waiting_message": "No answer."}
    update_job(database, UUID(job_id), waiting_since=1_772_366_400.0, resume_exact=False, **waiting)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["waiting"] == {
        "code": "storage_unavailable",
        "message": "No answer.",
        "since": "2026-03-01T12:00:00.000Z",
    }
    assert job["resume_exact"] is False
    client.post(f"/v1/jobs/{job_id}/cancel")
    assert client.get(f"/v1/jobs/{job_id}").json()["waiting"] is None
    assert get_job(database, UUID(job_id)).waiting_code is None


@pytest.mark.parametrize(
    ("method", "trainable"),
    [
        ({"type": "baseline"}, 148_610),
        ({"type": "baseline", "blocks": 1}, 148_610 + 1_774_464),
        ({"type": "lora", "targets": ["query", "value"], "head": "frozen"}, 73_728),
        ({"type": "lora", "head": "frozen"}, 331_776),
        ({"type": "full"}, 22_713_218),
    ],
)
def test_the_parameters_of_every_method_are_counted(
    submit: Submit, method: dict[str, Any], trainable: int
) -> None:
    assert submit(method=method)["parameters"]["trainable"] == trainable


def test_the_row_has_the_resolved_spec_and_its_first_event(
    submit: Submit, database: Database
) -> None:
    answer = submit(priority=-5)
    job = stored(database, answer["id"])

    assert job.spec == answer["spec"]
    assert (job.device_class, job.dataset_ids, job.attempt, job.spec_version) == ("any", {}, 0, 2)
    assert job.dispatched_at == pytest.approx(job.created_at, abs=1)
    assert job.dispatch_count == 0
    assert job.created_by == LOCAL_KEY_ID
    assert job.plan["flops_per_token"] > 1e7
    with database.read() as session:
        event = session.scalars(select(JobEvent)).one()
    assert (event.job_id, event.seq, event.kind, event.attempt) == (job.id, 1, "queued", 0)
    assert job.stream_seq == 1


@pytest.mark.parametrize(
    ("device", "device_class"),
    [("auto", "any"), ("cpu", "cpu"), ("cuda", "gpu")],
)
def test_the_device_decides_the_device_class(
    submit: Submit, database: Database, device: str, device_class: str
) -> None:
    assert stored(database, submit(runtime={"device": device})["id"]).device_class == device_class


@pytest.mark.parametrize("method", ["lora", "linear", "auto"])
def test_a_job_cannot_choose_a_gpu_by_its_number(client: TestClient, method: str) -> None:
    """The number would be that of another GPU on each worker."""
    body = {"method": {"type": method}, "runtime": {"device": "cuda:1"}}
    answer = client.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "gpu_number_rejected")
    assert answer.json()["errors"][0]["at"] == "runtime.device"


def test_workers_are_notified_after_the_commit(app: FastAPI, resources: Resources) -> None:
    messages = []

    class Checking(PollOnlyNotifier):
        def send(self, task: JobTask) -> None:
            assert stored(resources.database, str(task.job_id)).device_class == task.device_class
            messages.append((task.job_id, task.device_class))

    with TestClient(app) as client:
        opened: Resources = app.state.resources
        app.state.resources = Resources(opened.settings, opened.database, opened.store, Checking())
        job = client.post("/v1/jobs", json=LORA).json()
        client.post("/v1/jobs?dry_run=true", json=LORA)
    assert messages == [(UUID(job["id"]), "any")]


def test_a_dry_run_returns_the_plan_and_stores_nothing(
    client: TestClient, submit: Submit, database: Database
) -> None:
    submit()
    submit(priority=-1)
    before = count(database)
    answer = client.post("/v1/jobs?dry_run=true", json=LORA)
    job = submit()

    assert answer.status_code == 200
    assert "Location" not in answer.headers
    plan = answer.json()
    assert before == count(database) - 1
    assert plan == {
        name: job[name] for name in ("parameters", "estimated_seconds", "queue_position", "spec")
    } | {"cross_validation": None}
    assert plan["queue_position"] == 2


def count(database: Database) -> int:
    with database.read() as session:
        return session.scalars(select(func.count()).select_from(Job)).one()


def test_a_dry_run_rejects_what_creating_rejects(client: TestClient) -> None:
    answer = client.post("/v1/jobs?dry_run=true", json={"method": {"type": "lora", "r": 385}})
    assert (answer.status_code, answer.json()["code"]) == (422, "rank_too_large")


def test_a_stored_spec_can_be_submitted_again(submit: Submit) -> None:
    first = submit(method={"type": "full"}, data={"source": "imdb", "train_size": 500})
    assert submit(**first["spec"])["spec"] == first["spec"]
