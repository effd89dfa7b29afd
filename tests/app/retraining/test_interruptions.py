"""A worker that dies at any point of a run costs nothing but time: nothing is done twice."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.database.engines import Database
from app.datasets.errors import DatasetNotFound
from app.queue.enums import JobKind, JobState
from app.queue.tables import Job
from app.registry.tables import ModelVersion
from app.resources import Resources
from app.retraining import collect_training_texts, repository, scheduler
from app.retraining.states import RetrainingState
from app.retraining.tables import RetrainingRun
from app.sweeps import planning
from tests.app.retraining.conftest import LABELS, MODEL, NEW_WORDS, Retraining, make_texts
from tests.in_process_jobs import run_jobs
from tests.job_rows import add_job
from tests.retraining_rows import add_run, all_runs
from tests.slow import slow_but
from tests.webhook_rows import create_webhook, deliveries

POINTS = (
    "retraining_started",
    "retraining_stored",
    "retraining_collected",
    "retraining_trained",
    "retraining_deciding",
    "retraining_decided",
)


class Killed(BaseException):
    """The worker dies."""


def let_claims_expire(database: Database) -> None:
    with database.write() as session:
        session.execute(update(RetrainingRun).values(claimed_until=0.0))


@pytest.mark.parametrize("point", slow_but(POINTS, "retraining_trained", "retraining_decided"))
def test_killed_worker(mood: Retraining, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    create_webhook(
        mood.resources, "http://127.0.0.1:9/", events=["model.promoted", "retraining.finished"]
    )
    mood.add_sampled(make_texts(NEW_WORDS, 160, seed=1))
    mood.set_rule()
    deaths: list[str] = []

    def die(reached: str) -> None:
        if reached == point and not deaths:
            deaths.append(reached)
            raise Killed

    monkeypatch.setattr(scheduler, "failpoint", die)
    monkeypatch.setattr(collect_training_texts, "failpoint", die)
    for _ in range(8):
        try:
            scheduler.start_and_advance_runs(mood.resources)
        except Killed:
            let_claims_expire(mood.resources.database)
        run_jobs(mood.resources, mood.directory)
    assert deaths == [point]
    (run,) = mood.runs()
    assert run["state"] == "promoted", run
    assert mood.aliases() == {"production": 2}
    with mood.resources.database.read() as session:
        kinds = list(session.scalars(select(Job.kind)))
    assert sorted(kinds) == [JobKind.PREDICTION] * 2 + [JobKind.TRAINING] * 2  # one of them made v1
    events = [each.type for each in deliveries(mood.resources.database)]
    assert sorted(events) == ["model.promoted", "retraining.finished"]
    versions = mood.client.get("/v1/datasets").json()["data"]
    assert [each["ref"] for each in versions] == [
        f"{MODEL}-evaluation:1",
        f"{MODEL}-retraining:1",
        "moods:1",
    ]


def test_worker_that_lost_its_claim_writes_nothing(
    mood: Retraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was suspended while it collected texts, and another worker did that meanwhile."""
    mood.add_sampled(make_texts(NEW_WORDS, 40, seed=1))
    mood.set_rule()
    entered: list[str] = []

    def resume_late(reached: str) -> None:
        if reached == "retraining_stored" and not entered:
            entered.append(reached)
            let_claims_expire(mood.resources.database)
            scheduler.start_and_advance_runs(mood.resources)  # the other worker

    monkeypatch.setattr(collect_training_texts, "failpoint", resume_late)
    scheduler.start_and_advance_runs(mood.resources)
    assert entered
    (row,) = all_runs(mood.resources.database)
    assert row.state == RetrainingState.TRAINING
    with mood.resources.database.read() as session:
        assert len(session.scalars(select(Job.id)).all()) == 2
    assert len(mood.client.get("/v1/datasets").json()["data"]) == 3


def test_worker_that_lost_its_claim_does_not_fail_the_run(
    mood: Retraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other worker is still at it."""
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule()
    database = mood.resources.database

    def fail_late(reached: str) -> None:
        (row,) = all_runs(database)
        let_claims_expire(database)
        with database.write() as session:
            state = RetrainingState.COLLECTING
            assert repository.claim_step(session, row.id, state, seconds=60)  # the other worker
        raise DatasetNotFound(ref=reached)

    monkeypatch.setattr(collect_training_texts, "failpoint", fail_late)
    scheduler.start_and_advance_runs(mood.resources)
    (row,) = all_runs(database)
    assert (row.state, row.claims) == (RetrainingState.COLLECTING, 2)


def test_claim_is_exclusive(resources: Resources, mood: Retraining) -> None:
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule()
    scheduler.start_due_runs(resources)
    (row,) = all_runs(resources.database)
    state = RetrainingState.COLLECTING
    with resources.database.write() as session:
        assert repository.claim_step(session, row.id, state, seconds=60) == (1, 0)
        assert repository.claim_step(session, row.id, state, seconds=60) is None
        repository.release_step(session, row.id, 1)
        assert repository.claim_step(session, row.id, state, seconds=0) == (2, 1)
        assert repository.claim_step(session, row.id, RetrainingState.TRAINING, seconds=1) is None


def test_claim_lasts_as_long_as_the_files_of_a_step_may_take(
    mood: Retraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule()
    settings = mood.resources.settings.model_copy(update={"inspect_seconds": 400.0})

    def fill_disk(reached: str) -> None:
        if reached == "retraining_stored":
            raise OSError(reached)

    monkeypatch.setattr(collect_training_texts, "failpoint", fill_disk)
    scheduler.start_and_advance_runs(replace(mood.resources, settings=settings))
    with mood.resources.database.write() as session:
        repository.release_claims_after_clock_step(session, settings)
    (row,) = all_runs(mood.resources.database)
    assert row.claimed_until == pytest.approx(time.time() + 2000, abs=120)


def test_step_that_never_ends_fails(
    mood: Retraining, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule()

    def crash(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(collect_training_texts, "resolve_feedback_labels", crash)
    for _ in range(scheduler.MAX_CRASHES + 1):
        scheduler.start_and_advance_runs(mood.resources)
    assert "a bug" in caplog.text
    (run,) = mood.runs()
    assert (run["state"], run["error"]["code"]) == ("failed", "retraining_interrupted")


def test_full_disk_waits(mood: Retraining, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule()
    full = tmp_path / "full"
    full.touch()
    monkeypatch.setenv("LORAWORKS_FAULT", f"retraining_stored:enospc:{full}")
    for _ in range(scheduler.MAX_CRASHES + 1):  # it is no crash, however often it happens
        scheduler.start_and_advance_runs(mood.resources)
        let_claims_expire(mood.resources.database)
    scheduler.start_and_advance_runs(mood.resources)
    assert mood.runs()[0]["state"] == "collecting"
    full.unlink()
    scheduler.start_and_advance_runs(mood.resources)
    assert mood.runs()[0]["state"] == "collecting"  # until the claim expires
    let_claims_expire(mood.resources.database)
    scheduler.start_and_advance_runs(mood.resources)
    assert mood.runs()[0]["state"] == "training"


def test_text_forgotten_while_texts_are_collected(
    mood: Retraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = make_texts(NEW_WORDS, 20, seed=1)
    mood.volunteer(live)
    mood.set_rule()
    forgotten: list[str] = []

    def forget(reached: str) -> None:
        if reached == "retraining_stored" and not forgotten:
            forgotten.append(live[0][0])
            response = mood.client.post("/v1/forget", json={"text": live[0][0]})
            assert response.status_code == 200, response.text

    monkeypatch.setattr(collect_training_texts, "failpoint", forget)
    scheduler.start_and_advance_runs(mood.resources)
    assert forgotten
    assert mood.runs()[0]["state"] == "collecting"
    assert len(mood.client.get("/v1/datasets").json()["data"]) == 1
    scheduler.start_and_advance_runs(mood.resources)
    run = mood.runs()[0]
    assert (run["state"], run["data"]["live_volunteered"]) == ("training", 19)
    found = mood.client.post("/v1/forget", json={"text": live[0][0]}).json()
    assert found["datasets"] == []


def test_run_that_is_cancelled_while_its_search_starts(
    mood: Retraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule(search={"space": {"method.C": [0.01, 10.0]}})
    scheduler.start_and_advance_runs(mood.resources)
    run = mood.runs()[0]
    plan_trials = planning.plan_trials

    def cancel_while_planning(*args: Any, **kwargs: Any) -> Any:
        path = f"/v1/models/{MODEL}/retraining/runs/{run['id']}/cancel"
        assert mood.client.post(path).status_code == 200
        return plan_trials(*args, **kwargs)

    monkeypatch.setattr(planning, "plan_trials", cancel_while_planning)
    scheduler.start_and_advance_runs(mood.resources)
    assert mood.runs()[0]["state"] == "cancelled"
    assert mood.client.get("/v1/sweeps").json()["data"] == []
    assert run_jobs(mood.resources, mood.directory) == 0


def test_run_whose_search_was_deleted_can_be_cancelled(mood: Retraining) -> None:
    mood.volunteer(make_texts(NEW_WORDS, 20, seed=1))
    mood.set_rule(search={"space": {"method.C": [0.01, 10.0]}})
    for _ in range(2):
        scheduler.start_and_advance_runs(mood.resources)
    (sweep,) = mood.client.get("/v1/sweeps").json()["data"]
    assert mood.client.post(f"/v1/sweeps/{sweep['id']}/stop").status_code == 200
    assert mood.client.delete(f"/v1/sweeps/{sweep['id']}").status_code == 204
    run = mood.runs()[0]
    assert run["sweep_id"] == sweep["id"]
    path = f"/v1/models/{MODEL}/retraining/runs/{run['id']}/cancel"
    assert mood.client.post(path).json()["state"] == "cancelled"


@pytest.mark.parametrize("field", ["dataset_id", "evaluation_dataset_id"])
def test_data_that_comes_into_use_after_it_was_listed_is_kept(
    mood: Retraining, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """A job of the run succeeds in between."""
    database = mood.resources.database
    rows = ["text,label", *(f"{text},{label}" for text, label in make_texts(LABELS, 8))]
    ref = mood.upload(rows, suffix="csv", name="used")
    dataset_id = UUID(mood.client.get(f"/v1/datasets/{ref}").json()["id"])
    ended: dict[str, Any] = {"state": JobState.SUCCEEDED, "finished_at": 1.0}
    job_id = add_job(database, dataset_ids={"all": str(dataset_id)}, **ended)
    run = {field: dataset_id, "new_run_id": job_id}
    add_run(database, MODEL, state="cancelled", new_number=None, **run)
    delete_dataset = scheduler._delete_dataset

    def use_and_delete(*args: Any) -> None:
        with database.write() as session:
            version = session.scalars(select(ModelVersion)).one()
            version.job_id = job_id
            session.get_one(Job, job_id).artifact_id = version.artifact_id
        delete_dataset(*args)

    monkeypatch.setattr(scheduler, "_delete_dataset", use_and_delete)
    scheduler.start_and_advance_runs(mood.resources)
    (row,) = all_runs(database)
    assert getattr(row, field) == dataset_id
    assert mood.client.get(f"/v1/datasets/{ref}").status_code == 200
