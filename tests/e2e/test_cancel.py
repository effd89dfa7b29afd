"""A cancelled job stops in every state and leaves no files."""

import random
import time
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import select

from app.database.base import now
from app.jobs import repository
from app.queue.enums import AttemptOutcome as Ended
from app.queue.enums import JobState
from app.storage.tables import Artifact
from tests.e2e.conftest import Install
from tests.e2e.installation import Installation, gone
from tests.e2e.kinds import EMBEDDED_FIRST
from tests.job_rows import add_job, attempts, get_job
from tests.waiting import wait_until
from tests.worker.test_job_runner import GOOD

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def cancel(installation: Installation, job_id: UUID) -> None:
    with installation.database.write() as session:
        repository.request_cancel(session, job_id)


def made(installation: Installation, job_id: UUID) -> int:
    with installation.database.read() as session:
        return len(session.scalars(select(Artifact).where(Artifact.job_id == job_id)).all())


def check_cancelled(installation: Installation, job_id: UUID, children: list[int]) -> None:
    assert installation.ended(job_id, seconds=45) is JobState.CANCELLED
    for pid in children:
        gone(pid)
    assert made(installation, job_id) == 0
    before = get_job(installation.database, job_id).finished_at
    cancel(installation, job_id)
    assert get_job(installation.database, job_id).finished_at == before


@EMBEDDED_FIRST
def test_queued_job_is_cancelled_before_it_is_claimed(installation: Installation) -> None:
    job_id = add_job(installation.database, run_after=now() + 3600)
    cancel(installation, job_id)
    check_cancelled(installation, job_id, [])


@pytest.mark.slow  # the small form is in tests/worker/test_child_process_supervisor.py
@pytest.mark.parametrize("point", ["loading", "step", "evaluating", "saving"])
@pytest.mark.parametrize("kind", ["embedded"])
def test_unresponsive_training_is_killed(install: Install, tmp_path: Path, point: str) -> None:
    installation = install(stop_grace_seconds=1)
    still = tmp_path / "still"
    still.touch()
    job_id = installation.submit()
    installation.worker(fault=f"{point}:pause:{still}")
    reached = tmp_path / "still.reached"
    wait_until(reached.exists, seconds=60, what=f"the {point} of the training")
    children = installation.children()
    assert children
    cancel(installation, job_id)
    check_cancelled(installation, job_id, children)


# The small forms: tests/worker/test_child_process_supervisor.py, test_kill of lora_core
@pytest.mark.slow
def test_training_stops_at_its_next_step(installation: Installation) -> None:
    job_id = installation.submit(spec={"optim": {"epochs": 500, "batch_size": 8}})
    installation.worker(checkpoint_seconds=3600)
    installation.saw(job_id, "evaluated")
    children = installation.children()
    cancel(installation, job_id)
    check_cancelled(installation, job_id, children)
    assert [each.outcome for each in attempts(installation.database, job_id)] == [Ended.CANCELLED]


def race(installation: Installation, *, count: int) -> None:
    """Cancellations while jobs end: each job has exactly one outcome."""
    draw = random.Random(5)
    installation.worker(*GOOD)
    for _ in range(count):
        job_id = add_job(installation.database)
        installation.runs(job_id)
        time.sleep(draw.uniform(0, 0.6))
        cancel(installation, job_id)
        state = installation.ended(job_id)
        assert state in (JobState.SUCCEEDED, JobState.CANCELLED)
        assert made(installation, job_id) == (state is JobState.SUCCEEDED)
        outcomes = [each.outcome for each in attempts(installation.database, job_id)]
        assert outcomes == [Ended(state)]


@pytest.mark.slow  # the small forms are in tests/app/jobs/test_cancel.py
@EMBEDDED_FIRST
def test_cancel_racing_with_success_has_one_outcome(installation: Installation) -> None:
    race(installation, count=4)


@pytest.mark.slow
def test_many_cancels_racing_with_success(installation: Installation) -> None:
    race(installation, count=40)
