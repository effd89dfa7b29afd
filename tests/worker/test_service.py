"""A worker as a whole, in this process: opened, drained, and refused."""

import pytest

from app.db.engines import Database
from app.jobs.states import JobState
from app.settings import Settings
from tests.job_rows import add_job, state
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from tests.worker.test_run_job import GOOD
from worker.errors import GpuMissing
from worker.service import open_service


def test_it_works_until_it_is_drained_however_often_it_is_told(
    settings: Settings, database: Database
) -> None:
    service = open_service(settings, scripted(*GOOD))
    service.start()
    job_id = add_job(database)
    service.wake()
    wait_until(lambda: state(database, job_id) is JobState.SUCCEEDED)
    for _ in range(3):
        service.drain()
    assert service.wait()
    waits = add_job(database)
    service.wake()
    service.close()
    assert state(database, waits) is JobState.QUEUED


def test_a_device_that_is_not_there_is_told_before_anything_starts(settings: Settings) -> None:
    with pytest.raises(GpuMissing, match="cuda:42"):
        open_service(settings.model_copy(update={"devices": ("cuda:42",)}))
