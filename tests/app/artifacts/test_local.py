"""A store in a directory."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.artifacts.errors import StorageRefused
from app.artifacts.local import LocalStore
from app.artifacts.store import ArtifactRef
from lora_core import manifest
from tests.app.artifacts.stores import KEY, made, putting, ref_of

NOBODY = 65534


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> LocalStore:
    return LocalStore(root)


@pytest.fixture
def other_disk(tmp_path: Path) -> Iterator[Path]:
    directory = Path("/dev/shm") / f"loraworks-{os.getpid()}"  # noqa: S108 - a file system apart
    assert directory.parent.stat().st_dev != tmp_path.stat().st_dev, "needs two file systems"
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def unprivileged() -> Iterator[None]:
    """Rights count, which they do not for root."""
    user = os.geteuid()
    os.seteuid(NOBODY if user == 0 else user)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_directory_from_another_disk_is_copied_and_then_named(
    store: LocalStore, root: Path, other_disk: Path
) -> None:
    ref = store.put(made(other_disk), KEY)
    assert not other_disk.exists()
    manifest.verify(store.path(ref))
    assert list((root / ".unfinished").iterdir()) == []


def test_a_copy_that_is_killed_leaves_what_can_be_deleted(
    root: Path, other_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAWORKS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LORAWORKS_STORE_URL", f"file://{root}")
    process = putting(made(other_disk), LORAWORKS_FAULT="store_files_written@2:kill")
    process.communicate("go\n")
    store = LocalStore(root)
    left = {"/".join(file.name.split("/")[:2]) for file in store.files()}
    assert {key.split("/")[0] for key in left} == {".unfinished"}
    for key in left:
        store.delete(key)
    assert list(store.files()) == []


def test_a_link_planted_in_the_store_leads_nowhere(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    outside = made(tmp_path / "outside")
    root.mkdir()
    (root / "jobs").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ValueError, match="leads out of the store"):
        store.path(ref_of(outside, "jobs/outside"))
    with pytest.raises(ValueError, match="leads out of the store"):
        store.delete("jobs/outside")
    assert outside.exists()


def test_a_folder_of_a_deleted_job_does_not_stay(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    for kind, keys in (
        ("jobs", ["jobs/x/a1", "jobs/x/a2"]),
        ("checkpoints", ["checkpoints/x/a1/step-1", "checkpoints/x/a2/step-2"]),
    ):
        for key in keys:
            store.put(made(tmp_path / "out"), key)
        store.delete(keys[0])
        assert store.path(ArtifactRef(keys[1], "", 0)).is_dir()
        store.delete(keys[1])
        assert list((root / kind).iterdir()) == []


def test_a_store_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = LocalStore(tmp_path / "file" / "store")
    source = made(tmp_path / "out")
    for use in (store.check, lambda: store.put(source, KEY)):
        with pytest.raises(StorageRefused, match="Not a directory"):
            use()
    assert source.exists()


def test_a_store_without_the_right_to_write_is_refused(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    root.mkdir(mode=0o555)
    source = made(tmp_path / "out")
    for folder in (source, *source.parents):
        if folder.is_relative_to(tmp_path.parents[2]):
            folder.chmod(folder.stat().st_mode | 0o055)
    with unprivileged(), pytest.raises(StorageRefused, match=r"Permission|not permitted"):
        store.check()
    with unprivileged(), pytest.raises(StorageRefused, match=r"Permission|not permitted"):
        store.put(source, KEY)
    assert source.exists()
