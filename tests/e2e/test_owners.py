"""Several workers, some killed, frozen or late: each job has exactly one effect."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from app.queue.enums import AttemptOutcome as Ended
from app.queue.enums import JobState
from app.storage.tables import Artifact
from tests.e2e.conftest import Install
from tests.e2e.installation import Installation, gone
from tests.e2e.kinds import EMBEDDED_FIRST
from tests.job_rows import add_job, attempts, dump_tables, get_job
from tests.waiting import put_to_sleep, wait_until
from tests.worker.test_job_runner import GOOD
from worker.failures import LEASE_LOST_MESSAGE

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def check_each_once(installation: Installation, jobs: list[UUID]) -> None:
    installation.succeeded(*jobs, seconds=200)
    with installation.database.read() as session:
        made = session.scalars(select(Artifact.job_id)).all()
    assert Counter(made) == Counter(jobs)
    for job_id in jobs:
        outcomes = [each.outcome for each in attempts(installation.database, job_id)]
        assert outcomes.count(Ended.SUCCEEDED) == 1
        assert outcomes[-1] == Ended.SUCCEEDED
        assert installation.effective_overlaps(job_id) == 0


def run_with_kills(
    installation: Installation, *, count: int, kills: int, workers: int, seed: int
) -> None:
    """Workers are killed from time to time; each job stays within its retries."""
    draw = random.Random(seed)
    jobs = [add_job(installation.database) for _ in range(count)]
    alive = [installation.worker(*GOOD) for _ in range(workers)]
    for _ in range(kills):
        time.sleep(draw.uniform(0.2, 1.5))
        index = draw.randrange(workers)
        alive[index].kill()
        alive[index] = installation.worker(*GOOD)
    check_each_once(installation, jobs)


@pytest.mark.slow  # small: tests/worker/test_process.py, tests/conformance/test_claim.py
@EMBEDDED_FIRST
def test_killed_workers_lose_or_duplicate_no_job(install: Install) -> None:
    run_with_kills(install(max_failures=20), count=8, kills=2, workers=3, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_workers_lose_or_duplicate_no_job_repeatedly(install: Install) -> None:
    run_with_kills(install(max_failures=20), count=200, kills=30, workers=4, seed=2)


@pytest.mark.slow  # the small form is in tests/conformance/test_renew.py
def test_worker_with_an_expired_lease_changes_nothing(install: Install, tmp_path: Path) -> None:
    installation = install(lease_seconds=2)
    job_id = add_job(installation.database)
    actions = ("started:5", f"first:{tmp_path / 'child'}", *GOOD)
    sleeper = installation.worker(*actions)
    child = int(wait_until(lambda: (tmp_path / "child").exists() and
                           (tmp_path / "child").read_text(), seconds=60))  # fmt: skip
    put_to_sleep(sleeper.pid, installation.database)
    installation.worker(*actions)
    installation.succeeded(job_id)
    before = dump_tables(installation.database)
    model = get_job(installation.database, job_id).artifact_id
    sleeper.thaw()
    gone(child, seconds=12)
    wait_until(
        lambda: LEASE_LOST_MESSAGE in installation.tail(),
        what="the message of the suspended worker",
    )
    assert dump_tables(installation.database) == before
    assert get_job(installation.database, job_id).artifact_id == model
    outcomes = [each.outcome for each in attempts(installation.database, job_id)]
    assert outcomes == [Ended.LOST, Ended.SUCCEEDED]


@pytest.mark.slow  # the small form is in tests/worker/test_job_runner.py
def test_training_that_always_crashes_fails_after_its_attempts(installation: Installation) -> None:
    job_id = add_job(installation.database)
    installation.worker("started:5", "steps:3", "exit:139")
    assert installation.ended(job_id) is JobState.FAILED
    assert get_job(installation.database, job_id).error_code == "crash_loop"
    assert len(attempts(installation.database, job_id)) == 2
    healthy = add_job(installation.database)
    assert installation.ended(healthy) is JobState.FAILED  # the worker continued with the next job


@pytest.mark.slow  # tests/worker/test_process.py kills the worker, and the training ends with it
def test_killed_process_group_is_detected(installation: Installation, tmp_path: Path) -> None:
    job_id = add_job(installation.database)
    actions = ("started:5", f"first:{tmp_path / 'child'}", *GOOD)
    worker = installation.worker(*actions)
    child = int(wait_until(lambda: (tmp_path / "child").exists() and
                           (tmp_path / "child").read_text(), seconds=60))  # fmt: skip
    os.killpg(child, signal.SIGKILL)
    worker.kill()
    installation.worker(*actions)
    installation.succeeded(job_id)
