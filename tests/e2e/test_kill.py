"""A training that is drained or killed at any moment gives the same numbers in the end."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from app.jobs.states import JobState
from app.jobs.states import Outcome as Ended
from tests.e2e.installation import Installation, Outcome
from tests.e2e.kinds import CLUSTER_FIRST
from tests.job_rows import attempts, job

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def check(installation: Installation, job_id: object, unbroken: Outcome) -> None:
    outcome = installation.outcome(job_id)  # type: ignore[arg-type]
    assert outcome.curves == unbroken.curves
    assert outcome.files == unbroken.files


@pytest.mark.slow  # the small form is in tests/lora_core/training/test_kill.py
@pytest.mark.parametrize(
    "point",
    ["step", "evaluating", "checkpoint_files_written", "checkpoint_written", "saving"],
)
@pytest.mark.parametrize("kind", ["embedded"])
def test_a_training_killed_there_goes_on_and_gives_the_same_numbers(
    installation: Installation, unbroken: Outcome, tmp_path: Path, point: str
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
    check(installation, job_id, unbroken)


@CLUSTER_FIRST  # killed workers of an embedded installation are in test_sweep.py
def test_of_three_workers_one_is_drained_one_is_killed_and_the_numbers_are_the_same(
    installation: Installation, unbroken: Outcome
) -> None:
    job_id = installation.submit()
    worker = installation.worker(checkpoint_seconds=3600)  # no checkpoint but the last
    installation.saw(job_id, "evaluated")
    began = time.monotonic()
    assert worker.leave() == 0
    assert time.monotonic() - began < 30  # the grace of a training
    row = job(installation.database, job_id)
    assert (row.state, row.failures_counted) == (JobState.QUEUED, 0)
    (drained,) = attempts(installation.database, job_id)
    assert drained.outcome == Ended.PREEMPTED
    assert installation.children() == []

    worker = installation.worker()
    installation.saw(job_id, "checkpoint", count=3)
    worker.kill()
    installation.worker()
    installation.succeeded(job_id)
    ended = attempts(installation.database, job_id)
    assert [each.outcome for each in ended] == [Ended.PREEMPTED, Ended.LOST, Ended.SUCCEEDED]
    assert ended[2].first_step > ended[1].first_step == drained.last_step > 0
    assert installation.effective_overlaps(job_id) == 0
    assert job(installation.database, job_id).resume_exact
    check(installation, job_id, unbroken)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_at_random_moments_change_no_number(
    installation: Installation, unbroken: Outcome
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
        check(installation, job_id, unbroken)
