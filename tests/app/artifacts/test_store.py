"""Directories go in whole, stay as they are, and keys lead nowhere else."""

import os
import shutil
from pathlib import Path

import pytest

from app.artifacts.errors import ArtifactExists
from app.artifacts.store import LocalStore
from lora_core import manifest
from lora_core.errors import ArtifactCorrupt

KEY = "jobs/0197c5d2-7a3e-7000-8000-000000000001/a1"


def made(directory: Path, text: str = "weights") -> Path:
    (directory / "merged").mkdir(parents=True)
    (directory / "merged" / "model.safetensors").write_text(text)
    manifest.write(directory, {"format": 1})
    return directory


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_a_directory_is_moved_in_and_described(store: LocalStore, tmp_path: Path) -> None:
    source = made(tmp_path / "out")
    digest, total = manifest.sha256(source / "manifest.json"), _bytes(source)
    ref = store.put(source, KEY)
    assert (ref.key, ref.manifest_sha256, ref.bytes) == (KEY, digest, total)
    assert not source.exists()
    assert (store.path(KEY) / "merged" / "model.safetensors").read_text() == "weights"
    manifest.verify(store.path(KEY))


def test_a_key_is_given_once(store: LocalStore, tmp_path: Path) -> None:
    store.put(made(tmp_path / "one", "first"), KEY)
    second = made(tmp_path / "two", "second")
    with pytest.raises(ArtifactExists):
        store.put(second, KEY)
    assert second.exists()
    assert (store.path(KEY) / "merged" / "model.safetensors").read_text() == "first"


def test_a_directory_from_another_disk_is_copied_and_then_named(
    store: LocalStore, tmp_path: Path
) -> None:
    other_disk = Path("/dev/shm") / f"loraworks-{os.getpid()}"  # noqa: S108 - a file system apart
    assert other_disk.parent.stat().st_dev != tmp_path.stat().st_dev, "needs two file systems"
    try:
        store.put(made(other_disk), KEY)
        assert not other_disk.exists()
    finally:
        shutil.rmtree(other_disk, ignore_errors=True)
    manifest.verify(store.path(KEY))
    assert list((tmp_path / "store" / ".unfinished").iterdir()) == []


def test_a_directory_that_fails_its_manifest_stays_out(store: LocalStore, tmp_path: Path) -> None:
    source = made(tmp_path / "out")
    (source / "merged" / "model.safetensors").write_text("changed")
    with pytest.raises(ArtifactCorrupt, match="safetensors has changed"):
        store.put(source, KEY)
    assert source.exists()
    with pytest.raises(ArtifactCorrupt, match="missing"):
        store.path(KEY)


def test_a_directory_with_a_link_stays_out(store: LocalStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("weights")
    source = made(tmp_path / "out")
    (source / "merged" / "model.safetensors").unlink()
    (source / "merged" / "model.safetensors").symlink_to(secret)
    with pytest.raises(ArtifactCorrupt, match="no plain file"):
        store.put(source, KEY)


@pytest.mark.parametrize(
    "key",
    ["", "/", "..", "../x", "jobs/../../x", "/etc", "jobs//a", "Jobs/A", "a b", "a\\b", "a\x00",
     "é", ".x", "a/", "jobs/.unfinished", "x" * 65, "$(id)", "a\n"],
)  # fmt: skip
def test_a_key_that_is_not_made_of_ids_is_refused(
    store: LocalStore, tmp_path: Path, key: str
) -> None:
    source = made(tmp_path / "out")
    with pytest.raises(ValueError, match="not a store key"):
        store.put(source, key)
    with pytest.raises(ValueError, match="not a store key"):
        store.path(key)
    with pytest.raises(ValueError, match="not a store key"):
        store.delete(key)
    assert source.exists()


def test_a_link_planted_in_the_store_leads_nowhere(store: LocalStore, tmp_path: Path) -> None:
    outside = made(tmp_path / "outside")
    (tmp_path / "store" / "jobs").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ValueError, match="leads out of the store"):
        store.path("jobs/outside")
    with pytest.raises(ValueError, match="leads out of the store"):
        store.delete("jobs/outside")
    assert outside.exists()


def test_deleting_removes_once_and_then_does_nothing(store: LocalStore, tmp_path: Path) -> None:
    store.put(made(tmp_path / "out"), KEY)
    store.delete(KEY)
    with pytest.raises(ArtifactCorrupt, match="missing"):
        store.path(KEY)
    store.delete(KEY)


def _bytes(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
