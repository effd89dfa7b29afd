"""A worker that is told to leave saves what it has and gives the job back."""

import time

import pytest

from app.jobs.states import JobState
from app.jobs.states import Outcome as Ended
from tests.e2e.installation import Installation, Outcome
from tests.e2e.kinds import CLUSTER_FIRST
from tests.e2e.test_kill import check
from tests.job_rows import attempts, job

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@CLUSTER_FIRST
def test_a_drained_job_is_saved_uncounted_and_goes_on_exactly(
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
    (attempt,) = attempts(installation.database, job_id)
    assert attempt.outcome == Ended.PREEMPTED
    assert installation.children() == []
    installation.worker()
    installation.succeeded(job_id)
    last = attempts(installation.database, job_id)[-1]
    assert last.first_step == attempt.last_step > 0
    check(installation, job_id, unbroken)
