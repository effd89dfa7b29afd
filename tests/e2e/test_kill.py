"""A training that is drained or killed at any time gives the same result."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from app.queue.enums import AttemptOutcome as Ended
from app.queue.enums import JobState
from tests.e2e.installation import Installation, Outcome
from tests.e2e.kinds import CLUSTER_FIRST
from tests.job_rows import attempts, get_job
from tests.waiting import wait_until
from tests.worker.test_predictions import sigterm_is_caught

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
PATIENT: dict[str, Any] = {
    "lease_seconds": 60
}  # a busy machine must not lose this worker's attempt


def check(installation: Installation, job_id: object, uninterrupted: Outcome) -> None:
    outcome = installation.outcome(job_id)  # type: ignore[arg-type]
    assert outcome.curves == uninterrupted.curves
    assert outcome.files == uninterrupted.files


@pytest.mark.slow  # the small form is in tests/lora_core/training/test_kill.py
@pytest.mark.parametrize(
    "point",
    ["step", "evaluating", "checkpoint_files_written", "checkpoint_written", "saving"],
)
@pytest.mark.parametrize("kind", ["embedded"])
def test_killed_training_resumes_to_the_same_result(
    installation: Installation, uninterrupted: Outcome, tmp_path: Path, point: str
) -> None:
    trigger = tmp_path / "trigger"
    job_id = installation.submit()
    installation.worker(fault=f"{point}:kill:{trigger}")
    installation.saw(job_id, "checkpoint", count=3)
    trigger.touch()
    installation.succeeded(job_id)
    assert not trigger.exists(), "the fault was never reached"
    first, *_, last = attempts(installation.database, job_id)
    assert (first.outcome, first.signal, last.outcome) == (Ended.FAILED, 9, Ended.SUCCEEDED)
    assert last.first_step > 0
    check(installation, job_id, uninterrupted)


@pytest.mark.slow  # the small forms: tests/worker/test_process.py, test_kill of lora_core
@CLUSTER_FIRST  # killed workers of an embedded installation are in test_sweep.py
def test_killed_and_drained_workers_give_the_same_result(
    installation: Installation, uninterrupted: Outcome, tmp_path: Path
) -> None:
    killed, drained = tmp_path / "killed", tmp_path / "drained"
    killed.touch()
    drained.touch()
    job_id = installation.submit()
    worker = installation.worker(fault=f"checkpoint_files_written@4:pause:{killed}")
    installation.saw(job_id, "checkpoint", count=3)
    worker.kill()

    worker = installation.worker(
        fault=f"step@2:pause:{drained}",
        checkpoint_seconds=3600,  # no checkpoint but the last
        **PATIENT,
    )
    wait_until(drained.with_name("drained.reached").exists, seconds=60, what="its second step")
    [child] = installation.children()
    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: sigterm_is_caught(child), what="the word to the training")
    drained.unlink()
    began = time.monotonic()
    assert worker.leave() == 0
    assert time.monotonic() - began < 30  # the grace of a training
    row = get_job(installation.database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 0)
    assert installation.children() == []

    installation.worker(**PATIENT)
    installation.succeeded(job_id)
    legs = attempts(installation.database, job_id)
    assert [leg.outcome for leg in legs] == [Ended.LOST, Ended.PREEMPTED, Ended.SUCCEEDED]
    assert legs[2].first_step == legs[1].last_step > legs[1].first_step > 0
    assert installation.effective_overlaps(job_id) == 0
    assert get_job(installation.database, job_id).resume_exact
    check(installation, job_id, uninterrupted)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_at_random_moments_give_the_same_result(
    installation: Installation, uninterrupted: Outcome
) -> None:
    draw = random.Random(7)
    workers = [installation.worker()]
    for _ in range(20):
        job_id = installation.submit()
        installation.runs(job_id)
        time.sleep(draw.uniform(0, 12))
        victims = draw.choice(["worker", "child", "both"])
        if victims != "worker":
            for pid in installation.children():
                os.kill(pid, signal.SIGKILL)
        if victims != "child":
            workers[-1].kill()
            workers.append(installation.worker())
        installation.succeeded(job_id)
        check(installation, job_id, uninterrupted)
