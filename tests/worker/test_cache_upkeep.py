"""A worker limits the cache of its machine, and deletes what was derived from deleted texts."""

import os
from pathlib import Path

import pytest
from sqlalchemy import update

from app.auth.tables import LOCAL_KEY_ID
from app.database.engines import Database
from app.datasets import repository as datasets
from app.datasets.tables import Dataset
from app.resources import Resources
from app.settings import Settings
from lora_core.cache import FOLDER_LIMITS
from tests.waiting import wait_until
from tests.worker.scripted import scripted
from tests.worker.test_job_runner import GOOD
from worker import cache_upkeep
from worker.cache_upkeep import tidy_cache
from worker.service import open_service


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with an entry of token ids."""
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache" / "tokens").mkdir(parents=True)
    add_entry(tmp_path / "cache")
    return tmp_path / "cache"


def add_entry(cache: Path) -> None:
    (cache / "tokens" / "entry").write_bytes(b"x" * 10)


def delete_a_dataset(database: Database, version: int) -> None:
    columns = {"text_column": "text", "label_column": "label", "split_column": None}
    dataset = Dataset(
        created_by=LOCAL_KEY_ID, name="films", version=version, filename="films.jsonl",
        suffix=".jsonl", sha256="0" * 64, bytes=1, rows=20, profile={}, **columns,
    )  # fmt: skip
    with database.write() as session:
        session.add(dataset)
        session.flush()
        datasets.soft_delete_dataset(session, dataset)


def test_each_deletion_of_a_dataset_removes_what_texts_can_be_read_from(
    resources: Resources, cache: Path
) -> None:
    entry = cache / "tokens" / "entry"
    tidy_cache(resources)
    assert entry.exists()  # no dataset was deleted: other services may use the cache
    for version in (1, 2):
        delete_a_dataset(resources.database, version)
        tidy_cache(resources)
        assert not entry.exists()
        add_entry(cache)  # of another dataset
        tidy_cache(resources)
        assert entry.exists()


def test_each_cache_is_cleared(
    resources: Resources, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers with caches of their own may share a data directory."""
    delete_a_dataset(resources.database, 1)
    tidy_cache(resources)
    other = tmp_path / "other"
    (other / "tokens").mkdir(parents=True)
    add_entry(other)
    monkeypatch.setenv("LORAWORKS_CACHE", str(other))
    tidy_cache(resources)
    assert not (other / "tokens" / "entry").exists()


def test_clock_that_was_set_back_hides_no_deletion(resources: Resources, cache: Path) -> None:
    delete_a_dataset(resources.database, 1)
    with resources.database.write() as session:
        session.execute(update(Dataset).values(deleted_at=Dataset.deleted_at + 3600))
    tidy_cache(resources)
    add_entry(cache)
    delete_a_dataset(resources.database, 2)
    tidy_cache(resources)
    assert not (cache / "tokens" / "entry").exists()


def test_entries_beyond_a_limit_are_evicted(
    resources: Resources, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FOLDER_LIMITS, "tokens", 15)
    (cache / "tokens" / "newer").write_bytes(b"x" * 10)
    tidy_cache(resources)
    assert [each.name for each in (cache / "tokens").iterdir()] == ["newer"]


def test_what_a_killed_process_left_unfinished_is_deleted(
    resources: Resources, cache: Path
) -> None:
    for folder in ("bases", "samples", "tokens"):
        for name in (".making-0-killed", ".making-1-running"):
            (cache / folder / name).mkdir(parents=True)
            (cache / folder / name / "file").touch()
        os.utime(cache / folder / ".making-0-killed", (1, 1))
    tidy_cache(resources)
    assert {path.name for path in cache.glob("*/.*")} == {".making-1-running"}


def test_a_worker_tidies_the_cache(
    settings: Settings, database: Database, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_upkeep, "POLL_SECONDS", 0.01)
    scripted(*GOOD)
    delete_a_dataset(database, 1)
    service = open_service(settings)
    service.start()
    try:
        wait_until(lambda: not (cache / "tokens" / "entry").exists(), what="the deletion")
    finally:
        service.requeue_jobs_and_wait()
        service.close()
