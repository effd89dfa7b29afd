"""Bases and datasets of a sweep are resolved once and stay the same to its end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from app.settings import Settings
from app.sweeps.tables import Sweep
from tests.app.conftest import settings as default_settings
from tests.app.jobs.conftest import upload
from tests.app.jobs.test_pretrained_bases import version
from tests.app.sweeps.conftest import GetSweep, GetTrials, StartSweep
from tests.app.sweeps.fake_worker import FakeSweepWorker
from tests.tiny_base import make_base

__all__ = ["default_settings", "upload", "version"]

LORA = {"type": "lora", "targets": ["query"]}
SPACE = {"method.r": [2, 4, 8], "method.alpha": [8, 16]}
HALVING = {"type": "halving", "eta": 2, "min_budget": 0.25, "min_full_runs": 1}
Upload = Callable[..., UUID]


@pytest.fixture
def settings(default_settings: Settings, tmp_path: Path) -> Settings:
    """Settings with a folder of bases."""
    make_base(tmp_path / "bases" / "tiny")
    return default_settings.model_copy(update={"base_dirs": (tmp_path / "bases",)})


def run_to_end(
    start_sweep: StartSweep, get_sweep: GetSweep, worker: FakeSweepWorker, **fields: Any
) -> dict[str, Any]:
    sweep = start_sweep(space=SPACE, strategy=HALVING, **fields)
    worker.run_jobs()
    after = get_sweep(sweep)
    assert after["state"] == "finished", after
    return after


def test_a_base_directory(
    start_sweep: StartSweep, get_sweep: GetSweep, worker: FakeSweepWorker
) -> None:
    """A directory below the configured folder is stored by its full path."""
    run_to_end(start_sweep, get_sweep, worker, job={"method": LORA, "base": "./tiny"})
    assert {each.spec["base"].startswith("/") for each in worker.jobs_run} == {True}
    assert len(worker.jobs_run) == 6 + 3 + 2


def test_a_base_that_no_first_trial_has(
    start_sweep: StartSweep, get_sweep: GetSweep, worker: FakeSweepWorker
) -> None:
    """A linear model has no base, and the other fields keep their first value when one varies."""
    worker.accuracy_of = lambda _: 0.9
    sweep = start_sweep(
        job={},
        space={"method.type": ["linear", "lora"], "base": ["minilm-l6", "./tiny"]},
        strategy={"type": "tpe", "trials": 12, "batch": 1},
    )
    worker.run_jobs()
    after = get_sweep(sweep)
    assert (after["state"], after["trial_counts"]["succeeded"]) == ("finished", 12)
    assert any(str(each.spec["base"]).endswith("/tiny") for each in worker.jobs_run)


def test_trials_of_a_base_that_was_not_looked_up_fail(
    start_sweep: StartSweep, get_sweep: GetSweep, get_trials: GetTrials, worker: FakeSweepWorker
) -> None:
    """Sweeps of earlier versions may propose such a base."""
    sweep = start_sweep(space=SPACE, strategy={"type": "tpe", "trials": 3, "batch": 1})
    with worker.database.write() as session:
        session.get_one(Sweep, UUID(sweep["id"])).resolved_inputs = {"bases": {}, "sources": {}}
    worker.run_jobs()
    assert get_sweep(sweep)["state"] == "finished"
    problem = "No base model 'minilm-l6': it was not looked up when the sweep was planned."
    assert [trial["error"] for trial in get_trials(sweep)] == [None, problem, problem]


def test_an_upload_with_other_column_names(
    start_sweep: StartSweep, get_sweep: GetSweep, worker: FakeSweepWorker, upload: Upload
) -> None:
    upload("mails")
    run_to_end(start_sweep, get_sweep, worker, job={"method": LORA, "data": {"source": "mails"}})
    columns = {(e.spec["data"]["text_column"], e.spec["data"]["source"]) for e in worker.jobs_run}
    assert columns == {("body", "mails:1")}


def test_a_source_for_each_split(
    start_sweep: StartSweep, get_sweep: GetSweep, worker: FakeSweepWorker, upload: Upload
) -> None:
    upload("mails")
    upload("later")
    sources_by_split = {"train": "mails", "test": "later"}
    run_to_end(
        start_sweep, get_sweep, worker, job={"method": LORA, "data": {"source": sources_by_split}}
    )
    sources = {str(each.spec["data"]["source"]) for each in worker.jobs_run}
    assert sources == {str({"test": "later:1", "train": "mails:1"})} or len(sources) == 1


def test_a_new_version_of_a_dataset_changes_no_trial(
    start_sweep: StartSweep, worker: FakeSweepWorker, upload: Upload
) -> None:
    upload("mails")
    start_sweep(space=SPACE, strategy=HALVING, job={"method": LORA, "data": {"source": "mails"}})
    worker.run_jobs(6)
    upload("mails", version=2)
    worker.run_jobs()
    assert {each.spec["data"]["source"] for each in worker.jobs_run} == {"mails:1"}


def test_a_deleted_dataset_fails_the_remaining_trials(
    start_sweep: StartSweep,
    get_sweep: GetSweep,
    worker: FakeSweepWorker,
    upload: Upload,
    client: TestClient,
) -> None:
    upload("mails")
    sweep = start_sweep(space=SPACE, job={"method": LORA, "data": {"source": "mails"}})
    claimed = worker.claim_next()
    assert claimed is not None
    client.post(f"/v1/sweeps/{sweep['id']}/pause")
    worker.run_job(claimed)
    assert client.delete("/v1/datasets/mails:1").status_code == 204
    client.post(f"/v1/sweeps/{sweep['id']}/resume")
    after = get_sweep(sweep)
    assert (after["state"], after["trial_counts"]["failed"]) == ("finished", 5)
    best = {"model": "best", "trial": 6}
    refused = client.post(f"/v1/sweeps/{sweep['id']}/promote", json=best)
    assert (refused.status_code, refused.json()["code"]) == (409, "trial_not_runnable")


def test_a_deleted_base_fails_the_remaining_trials(
    start_sweep: StartSweep,
    get_sweep: GetSweep,
    worker: FakeSweepWorker,
    version: Callable[..., str],
    client: TestClient,
) -> None:
    version("mails")
    sweep = start_sweep(space={"method.r": [1, 2, 4]}, job={"method": LORA, "base": "mails:1"})
    claimed = worker.claim_next()
    assert claimed is not None
    client.post(f"/v1/sweeps/{sweep['id']}/pause")
    refused = client.delete("/v1/models/mails/versions/1")
    assert refused.json()["code"] == "version_read_by_jobs"
    worker.run_job(claimed)
    assert client.delete("/v1/models/mails/versions/1").status_code == 204
    client.post(f"/v1/sweeps/{sweep['id']}/resume")
    after = get_sweep(sweep)
    assert (after["state"], after["trial_counts"]["failed"]) == ("finished", 2)
