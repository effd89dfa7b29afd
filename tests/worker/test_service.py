"""A whole worker in this process: opened, drained, and rejected."""

import threading
from functools import partial

import pytest
from sqlalchemy import select

from app.database.base import new_id
from app.database.engines import Database
from app.errors import DataDirectoryUnusable
from app.queue.enums import JobState
from app.queue.tables import Worker
from app.resources import Resources
from app.settings import Settings
from tests.job_rows import add_job, attempts, get_state
from tests.starved import unprivileged
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from tests.worker.test_job_runner import GOOD
from worker.failures import GpuMissing
from worker.service import open_service


def test_runs_until_drained_even_by_repeated_requests(
    settings: Settings, database: Database
) -> None:
    scripted(*GOOD)
    service = open_service(settings)
    service.start()
    job_id = add_job(database)
    wait_until(lambda: get_state(database, job_id) is JobState.SUCCEEDED)
    for _ in range(3):
        service.request_drain()
    assert service.requeue_jobs_and_wait()
    waits = add_job(database)
    service.close()
    assert get_state(database, waits) is JobState.QUEUED


def test_job_run_by_id_returns_its_row(settings: Settings, database: Database) -> None:
    scripted(*GOOD)
    service = open_service(settings.model_copy(update={"poll_seconds": 3600}))
    service.start()
    assert service.run_job(new_id()) is None
    job_id = add_job(database)
    for _ in range(2):  # the second finds it done
        row = service.run_job(job_id)
        assert row is not None
        assert row.state == JobState.SUCCEEDED
    assert len(attempts(database, job_id)) == 1
    assert service.requeue_jobs_and_wait()
    waits = add_job(database)
    row = service.run_job(waits)
    assert row is not None
    assert row.state == JobState.QUEUED
    service.close()


def worker_row(database: Database) -> Worker:
    with database.read() as session:
        return session.scalars(select(Worker)).one()


def test_draining_is_visible_in_the_worker_row(settings: Settings, database: Database) -> None:
    service = open_service(settings)
    service.start()
    assert not worker_row(database).draining
    service.request_drain()
    wait_until(lambda: worker_row(database).draining)
    assert service.requeue_jobs_and_wait()
    service.close()
    with database.read() as session:
        assert session.scalars(select(Worker.id)).all() == []


def test_long_garbage_collection_blocks_nothing(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    collections, over = [], threading.Event()

    def collect(_: Resources) -> None:
        collections.append(worker_row(database).seen_at)
        assert over.wait(30)

    for name in ("FIRST_COLLECTION_SECONDS", "COLLECTION_INTERVAL_SECONDS"):
        monkeypatch.setattr(f"worker.service.{name}", 0.01)
    monkeypatch.setattr("worker.service.retention.collect_garbage", collect)
    service = open_service(settings)
    service.start()
    for _ in range(2):
        wait_until(lambda: collections)
        seen = worker_row(database).seen_at
        wait_until(partial(lambda seen: worker_row(database).seen_at > seen, seen))
    assert len(collections) == 1
    assert service.requeue_jobs_and_wait()
    over.set()
    service.close()


def test_missing_device_is_reported_before_start(settings: Settings) -> None:
    with pytest.raises(GpuMissing, match="cuda:42"):
        open_service(settings.model_copy(update={"devices": ("cuda:42",)}))


def test_unwritable_directory_is_rejected_before_start(settings: Settings) -> None:
    settings.data_dir.chmod(0o555)
    try:
        with unprivileged(settings.data_dir), pytest.raises(DataDirectoryUnusable) as refused:
            open_service(settings)
    finally:
        settings.data_dir.chmod(0o755)
    assert f"Permission denied: {settings.work_dir}" in str(refused.value)
