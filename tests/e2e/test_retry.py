"""Retries of cancelled or failed jobs are bitwise equal to an uninterrupted run."""

from pathlib import Path
from uuid import UUID

import pytest

from app.auth.tables import LOCAL_KEY_ID
from app.idempotency.service import IdempotentRequest
from app.jobs import repository
from app.jobs.service import create_retry_job
from app.queue.dispatch import open_worker_notifier
from app.queue.enums import JobState
from tests.e2e.conftest import Install
from tests.e2e.installation import Installation, Outcome
from tests.e2e.kinds import EMBEDDED_FIRST
from tests.e2e.test_kill import check
from tests.job_rows import attempts, get_job
from tests.waiting import wait_until
from tests.worker.test_predictions import sigterm_is_caught

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def cancel(installation: Installation, job_id: UUID) -> None:
    with installation.database.write() as session:
        repository.request_cancel(session, job_id)


def continued(installation: Installation, job_id: UUID) -> UUID:
    """The new job of a retry."""
    settings, notifier = installation.settings, open_worker_notifier(installation.settings)
    try:
        with installation.database.write() as session:
            call = IdempotentRequest(LOCAL_KEY_ID, "POST /v1/jobs/{job_id}/retry", None, None, 60)
            return create_retry_job(
                session, job_id=job_id, settings=settings, notifier=notifier, call=call
            ).id
    finally:
        notifier.close()


@pytest.mark.slow  # the small forms: tests/app/jobs/test_retry.py, test_kill.py of lora_core
@EMBEDDED_FIRST
def test_retried_jobs_are_bitwise_equal_to_an_uninterrupted_run(
    install: Install, uninterrupted: Outcome, tmp_path: Path
) -> None:
    installation, hold = install(max_failures=1), tmp_path / "hold"
    hold.touch()
    first = installation.submit()
    worker = installation.worker(fault=f"checkpoint_files_written@4:pause:{hold}")
    installation.saw(first, "checkpoint", count=3)
    cancel(installation, first)
    [child] = installation.children()
    wait_until(lambda: sigterm_is_caught(child), what="the word to the training")
    hold.unlink()
    assert installation.ended(first) is JobState.CANCELLED
    assert worker.leave() == 0

    second = continued(installation, first)
    cancel(installation, second)  # in the notifier
    third = continued(installation, second)
    assert get_job(installation.database, third).continues == first
    hold.touch()
    worker = installation.worker(fault=f"checkpoint_files_written@2:pause:{hold}")
    installation.saw(third, "checkpoint")
    worker.kill()
    installation.worker()
    assert installation.ended(third) is JobState.FAILED  # one failure is all that is allowed

    last = continued(installation, third)
    installation.succeeded(last)
    (leg,) = attempts(installation.database, last)
    assert leg.first_step > attempts(installation.database, third)[0].first_step > 0
    check(installation, last, uninterrupted)
