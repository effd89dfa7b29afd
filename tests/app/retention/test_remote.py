"""Garbage collection in a bucket, and after processes were killed."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.database.base import new_id
from app.resources import Resources, open_resources
from app.retention.files import DataKind
from app.retention.service import collect_garbage, disk_use
from app.settings import Settings
from app.storage import repository as artifacts
from tests.app.retention.conftest import DAY
from tests.app.storage.conftest import bucket
from tests.app.storage.stores import made, putting, ref_of

__all__ = ["bucket"]


@pytest.fixture(params=["sqlite"])
def database_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def resources(
    settings: Settings, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Resources]:
    """Everything in the bucket counts as old, because its clock cannot be set."""
    url = f"s3://{bucket}/prefix"
    monkeypatch.setenv("LORAWORKS_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("LORAWORKS_STORE_URL", url)
    old = {"store_url": url, "orphan_seconds": -10.0}
    opened = open_resources(settings.model_copy(update=old))
    yield opened
    opened.close()


def names(resources: Resources) -> list[str]:
    return [file.name for file in resources.store.list_files()]


@pytest.mark.parametrize("fault", ["", "store_files_written:kill"])
def test_files_of_a_killed_worker_are_deleted(
    resources: Resources, tmp_path: Path, fault: str
) -> None:
    """It was killed before its manifest existed, and before its row existed."""
    key = f"jobs/{new_id()}/a1"
    putting(made(tmp_path / "out"), key, LORAWORKS_FAULT=fault).communicate("go\n")
    assert (f"{key}/manifest.json" in names(resources)) is (fault == "")
    assert f"{key}/.claim" in names(resources)
    [removal] = collect_garbage(resources).removals
    assert (removal.kind, removal.key) == (DataKind.MODEL, key)
    assert names(resources) == []


def test_referenced_files_are_kept(resources: Resources, tmp_path: Path) -> None:
    ref = resources.store.move_directory_into_store(made(tmp_path / "out"), f"jobs/{new_id()}/a1")
    with resources.database.write() as session:
        artifacts.add_artifact(session, job_id=None, kind="model", ref=ref)
    before = names(resources)
    assert collect_garbage(resources).removals == ()
    assert names(resources) == before
    assert disk_use(resources)["models"] >= ref.bytes


def test_cached_copy_of_a_deleted_artifact_is_deleted(resources: Resources, tmp_path: Path) -> None:
    key = f"jobs/{new_id()}/a1"
    ref = ref_of(made(tmp_path / "out"), key)
    resources.store.move_directory_into_store(tmp_path / "out", key)
    copy = resources.store.local_directory(ref)
    os.utime(copy, (time.time() - 2 * DAY,) * 2)
    assert disk_use(resources)["copies"] == ref.bytes
    result = collect_garbage(resources)
    assert {removal.kind for removal in result.removals} == {DataKind.MODEL, DataKind.COPY}
    assert not copy.exists()


def test_cached_copy_of_a_referenced_artifact_is_kept(resources: Resources, tmp_path: Path) -> None:
    ref = resources.store.move_directory_into_store(made(tmp_path / "out"), f"jobs/{new_id()}/a1")
    with resources.database.write() as session:
        artifacts.add_artifact(session, job_id=None, kind="model", ref=ref)
    copy = resources.store.local_directory(ref)
    os.utime(copy, (time.time() - 2 * DAY,) * 2)
    collect_garbage(resources)
    assert copy.is_dir()
