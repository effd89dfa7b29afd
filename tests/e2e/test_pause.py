"""A training that is paused and resumed, whatever happens meanwhile, gives the same result."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest

from app.jobs.errors import JobFinished
from app.jobs.service import pause_job, resume_job
from app.queue.dispatch import open_worker_notifier
from app.queue.enums import AttemptOutcome as Ended
from app.queue.enums import JobState
from lora_core.specs.data import DataSpec
from lora_core.specs.method import LinearSpec
from lora_core.specs.train import TrainSpec
from tests.e2e.installation import Installation, Outcome, gone
from tests.e2e.kinds import CLUSTER_FIRST, EMBEDDED_FIRST
from tests.e2e.test_cancel import made
from tests.e2e.test_kill import check
from tests.job_rows import add_job, attempts, events, get_job
from tests.waiting import wait_until
from tests.worker.test_job_runner import GOOD
from tests.worker.test_predictions import sigterm_is_caught

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def pause(installation: Installation, job_id: UUID) -> None:
    with installation.database.write() as session:
        pause_job(session, job_id=job_id)


def resume(installation: Installation, job_id: UUID) -> None:
    notifier = open_worker_notifier(installation.settings)
    try:
        with installation.database.write() as session:
            resume_job(session, job_id=job_id, notifier=notifier)
    finally:
        notifier.close()


def is_paused(installation: Installation, job_id: UUID, *, seconds: float = 60) -> None:
    wait_until(
        lambda: get_job(installation.database, job_id).paused,
        seconds=seconds,
        what=f"the pause of {job_id}",
    )


@pytest.mark.slow  # tests/worker/test_job_runner.py pauses, test_exactness.py resumes
@EMBEDDED_FIRST
def test_paused_and_resumed_training_is_bitwise_equal_to_an_uninterrupted_run(
    installation: Installation, uninterrupted: Outcome, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    job_id = installation.submit()
    worker = installation.worker(
        fault=f"step@3:pause:{hold}",
        checkpoint_seconds=3600,  # no checkpoint but that of the pause
    )
    wait_until(hold.with_name("hold.reached").exists, seconds=60, what="its third step")
    [child] = installation.children()
    pause(installation, job_id)
    wait_until(lambda: sigterm_is_caught(child), what="the word to the training")
    hold.unlink()
    is_paused(installation, job_id)
    gone(child)

    other = installation.submit()  # the same worker goes on, and passes over the paused job
    installation.succeeded(other)
    assert worker.alive()
    row = get_job(installation.database, job_id)
    assert (row.paused, row.attempt, row.failures_counted) == (True, 1, 0)

    resume(installation, job_id)
    installation.succeeded(job_id)
    first, second = attempts(installation.database, job_id)
    assert (first.outcome, second.outcome) == (Ended.PREEMPTED, Ended.SUCCEEDED)
    assert second.first_step == first.last_step > 0
    kinds = [event.kind for event in events(installation.database, job_id)]
    told = [kind for kind in kinds if kind in ("pause_requested", "paused", "resume_requested")]
    assert told == ["pause_requested", "paused", "resume_requested"]
    assert get_job(installation.database, job_id).resume_exact
    for each in (job_id, other):
        check(installation, each, uninterrupted)


@pytest.mark.slow  # the small form is in tests/lora_core/training/test_kill.py
@pytest.mark.parametrize(
    "point",
    [
        "checkpoint_written",
        "checkpoint_files_written",
        "checkpoint_published",
    ],
)
@pytest.mark.parametrize("kind", ["embedded"])
def test_training_killed_while_it_saves_for_a_pause_loses_nothing(
    installation: Installation, uninterrupted: Outcome, tmp_path: Path, point: str
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    job_id = installation.submit()
    installation.worker(fault=f"{point}:pause:{hold}", checkpoint_seconds=3600)
    installation.saw(job_id, "training")
    pause(installation, job_id)
    wait_until(hold.with_name("hold.reached").exists, seconds=60, what=f"its {point}")
    [child] = installation.children()
    wait_until(lambda: sigterm_is_caught(child), what="the word to the training")
    os.kill(child, signal.SIGKILL)
    hold.unlink()
    is_paused(installation, job_id)
    assert get_job(installation.database, job_id).failures_counted == 0
    resume(installation, job_id)
    installation.succeeded(job_id)
    check(installation, job_id, uninterrupted)


@pytest.mark.slow  # the small form is in tests/conformance/test_pause.py
@CLUSTER_FIRST
def test_job_of_a_worker_killed_during_a_pause_stays_paused(
    installation: Installation, uninterrupted: Outcome, tmp_path: Path
) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    job_id = installation.submit()
    worker = installation.worker(fault=f"checkpoint_files_written@2:pause:{hold}")
    wait_until(hold.with_name("hold.reached").exists, seconds=60, what="its second checkpoint")
    pause(installation, job_id)
    worker.kill()
    hold.unlink()

    installation.worker()
    is_paused(installation, job_id)
    assert [each.outcome for each in attempts(installation.database, job_id)] == [Ended.LOST]
    other = installation.submit()
    installation.succeeded(other)
    assert get_job(installation.database, job_id).paused
    resume(installation, job_id)
    installation.succeeded(job_id)
    assert installation.effective_overlaps(job_id) == 0
    check(installation, job_id, uninterrupted)


@pytest.mark.slow  # the small form is in tests/worker/test_linear.py
@pytest.mark.parametrize("kind", ["embedded"])
def test_pause_of_a_linear_model_starts_it_over(installation: Installation, tmp_path: Path) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    data = DataSpec(train_size=200, validation_size=50, test_size=50)
    spec = TrainSpec(method=LinearSpec(), data=data).model_dump(mode="json")
    job_id, whole = (
        add_job(installation.database, method="linear", base="", spec=spec) for _ in range(2)
    )
    installation.worker(fault=f"saving:pause:{hold}", stop_grace_seconds=1)
    wait_until(hold.with_name("hold.reached").exists, seconds=60, what="its result")
    pause(installation, job_id)
    is_paused(installation, job_id)
    hold.unlink()
    resume(installation, job_id)
    installation.succeeded(job_id, whole)
    assert [each.first_step for each in attempts(installation.database, job_id)] == [0, 0]
    assert installation.outcome(job_id) == installation.outcome(whole)


def race(installation: Installation, *, count: int) -> None:
    """Pauses while jobs end: each job succeeds once, and none stays behind."""
    draw = random.Random(6)
    installation.worker(*GOOD)
    for _ in range(count):
        job_id = add_job(installation.database)
        for change in (pause, resume):
            time.sleep(draw.uniform(0, 0.6))
            with suppress(JobFinished):
                change(installation, job_id)
        assert installation.ended(job_id) is JobState.SUCCEEDED
        assert made(installation, job_id) == 1
        outcomes = [each.outcome for each in attempts(installation.database, job_id)]
        assert outcomes.pop() == Ended.SUCCEEDED
        assert set(outcomes) <= {Ended.PREEMPTED}
        assert installation.effective_overlaps(job_id) == 0


@pytest.mark.slow  # the small form is in tests/conformance/test_pause.py
@EMBEDDED_FIRST
def test_pause_and_resume_racing_with_success_have_one_outcome(installation: Installation) -> None:
    race(installation, count=4)


@pytest.mark.slow
def test_many_pauses_racing_with_success(installation: Installation) -> None:
    race(installation, count=40)
