"""A job that was cancelled or failed late is continued, and gives the bits of an unbroken run."""

from pathlib import Path
from uuid import UUID

import pytest

from app.auth.tables import LOCAL_KEY_ID
from app.idempotency.service import IdempotentCall
from app.jobs import repository
from app.jobs.retry import retry
from app.queue.dispatch import open_queue
from app.queue.states import JobState
from tests.e2e.conftest import Install
from tests.e2e.installation import Installation, Outcome
from tests.e2e.kinds import EMBEDDED_FIRST
from tests.e2e.test_kill import check
from tests.job_rows import attempts, get_job
from tests.waiting import wait_until
from tests.worker.test_predictions import heard_a_stop

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def cancel(installation: Installation, job_id: UUID) -> None:
    with installation.database.write() as session:
        repository.request_cancel(session, job_id)
        session.commit()


def continued(installation: Installation, job_id: UUID) -> UUID:
    """The new job of a retry."""
    settings, queue = installation.settings, open_queue(installation.settings)
    try:
        with installation.database.write() as session:
            call = IdempotentCall(LOCAL_KEY_ID, "POST /v1/jobs/{job_id}/retry", None, None, 60)
            return retry(session, job_id=job_id, settings=settings, queue=queue, call=call).id
    finally:
        queue.close()


@EMBEDDED_FIRST
def test_retries_of_a_cancelled_and_a_failed_job_give_the_bits_of_an_unbroken_run(
    install: Install, unbroken: Outcome, tmp_path: Path
) -> None:
    installation, hold = install(max_failures=1), tmp_path / "hold"
    hold.touch()
    first = installation.submit()
    worker = installation.worker(fault=f"checkpoint_files_written@4:pause:{hold}")
    installation.saw(first, "checkpoint", count=3)
    cancel(installation, first)
    [child] = installation.children()
    wait_until(lambda: heard_a_stop(child), what="the word to the training")
    hold.unlink()
    assert installation.ended(first) is JobState.CANCELLED
    assert worker.leave() == 0

    second = continued(installation, first)
    cancel(installation, second)  # in the queue
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
    check(installation, last, unbroken)
