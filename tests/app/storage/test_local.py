"""A store in a local directory."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.storage.errors import StorageRefused, StorageUnavailable
from app.storage.local import LocalStore
from app.storage.store import ArtifactRef
from lora_core import atomic_files, manifest
from lora_core.errors.artifact import ArtifactCorrupt
from tests.app.storage.stores import KEY, WEIGHTS, made, putting, ref_of
from tests.starved import no_descriptors, unprivileged


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


def test_directory_from_another_disk_is_copied_then_renamed(
    store: LocalStore, root: Path, other_disk: Path
) -> None:
    ref = store.move_directory_into_store(made(other_disk), KEY)
    assert not other_disk.exists()
    manifest.verify(store.local_directory(ref))
    assert list((root / ".unfinished").iterdir()) == []


def test_created_directories_are_fsynced(
    store: LocalStore, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory entry that was not fsynced is lost in a power failure, with all its content."""
    synced: list[Path] = []
    real = atomic_files.fsync

    def sync(path: Path) -> None:
        real(path)
        synced.append(path)

    monkeypatch.setattr(atomic_files, "fsync", sync)
    store.move_directory_into_store(made(tmp_path / "first"), "jobs/x/a1")
    renamed = synced[-4:]
    assert renamed == [root / "jobs/x", root / "jobs", root, tmp_path]
    synced.clear()
    store.move_directory_into_store(made(tmp_path / "second"), "jobs/x/a2")
    assert [path for path in synced if path.is_relative_to(root)] == [root / "jobs/x"]


def test_missing_checkpoint_directory_means_deleted(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    """The job then starts over. With an empty store it waits: the disk may not be mounted."""
    ref = store.move_directory_into_store(made(tmp_path / "checkpoint"), "checkpoints/x/a1/step-1")
    shutil.rmtree(root / "checkpoints")
    with pytest.raises(StorageUnavailable, match="mounted"):
        store.verified_directory(ref)
    model = store.move_directory_into_store(made(tmp_path / "model"), "jobs/x/a1")
    with pytest.raises(ArtifactCorrupt, match="missing"):
        store.verified_directory(ref)
    shutil.rmtree(root / "jobs")
    (root / "uploads").mkdir()
    with pytest.raises(StorageUnavailable, match="no directory jobs"):
        store.verified_directory(model)


@pytest.mark.parametrize("has_directory", [True, False], ids=["an-empty-directory", "no-directory"])
def test_disk_mounted_after_start_is_detected(
    root: Path, tmp_path: Path, has_directory: bool
) -> None:
    disk_of_ours = tmp_path / "disk"
    ref = LocalStore(disk_of_ours).move_directory_into_store(made(tmp_path / "model"), KEY)
    if has_directory:
        root.mkdir()
    begun_too_early = LocalStore(root)
    begun_too_early.read_clock()
    root.rename(tmp_path / "below")  # the disk is mounted
    disk_of_ours.rename(root)
    begun_too_early.read_clock()
    manifest.verify(begun_too_early.local_directory(ref))
    root.rename(disk_of_ours)  # and unmounted again
    (tmp_path / "below").rename(root)
    with pytest.raises(StorageUnavailable, match="mounted"):
        begun_too_early.read_clock()


def test_killed_copy_leaves_deletable_files(
    root: Path, other_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAWORKS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LORAWORKS_STORE_URL", f"file://{root}")
    process = putting(made(other_disk), LORAWORKS_FAULT="store_files_written@2:kill")
    process.communicate("go\n")
    store = LocalStore(root)
    left = {"/".join(file.name.split("/")[:2]) for file in store.list_files()}
    assert {key.split("/")[0] for key in left} == {".unfinished"}
    for key in left:
        store.delete(key)
    assert list(store.list_files()) == []


def test_symlink_in_the_store_is_not_followed(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    outside = made(tmp_path / "outside")
    root.mkdir()
    (root / "jobs").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ValueError, match="leads outside of the store"):
        store.local_directory(ref_of(outside, "jobs/outside"))
    with pytest.raises(ValueError, match="leads outside of the store"):
        store.delete("jobs/outside")
    assert outside.exists()


def test_empty_directory_of_a_deleted_job_is_removed(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    for kind, keys in (
        ("jobs", ["jobs/x/a1", "jobs/x/a2"]),
        ("checkpoints", ["checkpoints/x/a1/step-1", "checkpoints/x/a2/step-2"]),
    ):
        for key in keys:
            store.move_directory_into_store(made(tmp_path / "out"), key)
        store.delete(keys[0])
        assert store.local_directory(ArtifactRef(keys[1], "", 0)).is_dir()
        store.delete(keys[1])
        assert list((root / kind).iterdir()) == []


def test_store_that_cannot_be_created_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = LocalStore(tmp_path / "file" / "store")
    source = made(tmp_path / "out")
    for use in (store.check_health, lambda: store.move_directory_into_store(source, KEY)):
        with pytest.raises(StorageRefused, match="Not a directory"):
            use()
    assert source.exists()


def test_store_without_write_permission_is_refused(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    root.mkdir(mode=0o555)
    source = made(tmp_path / "out")
    with unprivileged(source), pytest.raises(StorageRefused, match=r"Permission|not permitted"):
        store.check_health()
    with unprivileged(source), pytest.raises(StorageRefused, match=r"Permission|not permitted"):
        store.move_directory_into_store(source, KEY)
    assert source.exists()


def test_verified_path_checks_every_byte(store: LocalStore, tmp_path: Path) -> None:
    ref = store.move_directory_into_store(made(tmp_path / "out"), KEY)
    assert store.verified_directory(ref) == store.local_directory(ref)
    (store.local_directory(ref) / WEIGHTS).write_text("WEIGHTS")
    with pytest.raises(ArtifactCorrupt, match="has changed"):
        store.verified_directory(ref)
    (store.local_directory(ref) / manifest.MANIFEST_FILE).unlink()
    manifest.create_and_save(
        store.local_directory(ref), {"format": 1}
    )  # a valid manifest, but a different one
    with pytest.raises(ArtifactCorrupt, match=r"manifest\.json has changed"):
        store.verified_directory(ref)


def test_unreadable_file_is_not_reported_as_damaged(store: LocalStore, tmp_path: Path) -> None:
    ref = store.move_directory_into_store(made(tmp_path / "out"), KEY)
    with no_descriptors(), pytest.raises(StorageUnavailable, match="Too many open files"):
        store.verified_directory(ref)
    place = store.local_directory(ref)
    place.parent.chmod(0)
    with unprivileged(tmp_path), pytest.raises(StorageRefused, match="Permission"):
        store.local_directory(ref)
    place.parent.chmod(0o755)
    store.verified_directory(ref)


def test_unmounted_disk_is_not_reported_as_damage(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    ref = store.move_directory_into_store(made(tmp_path / "out"), KEY)
    root.rename(tmp_path / "away")
    store.check_health()  # this creates an empty directory
    store.get_or_set_owner("somebody")
    for use in (
        lambda: store.local_directory(ref),
        lambda: store.verified_directory(ref),
        lambda: store.read(ref, WEIGHTS),
        lambda: store.verified_file("uploads/x/y.csv", "0" * 64),
    ):
        with pytest.raises(StorageUnavailable, match="mounted"):
            use()


def test_only_one_of_many_candidates_owns_the_store(root: Path) -> None:
    owners: list[str | None] = []
    for round_ in range(20):
        owners.clear()
        start = threading.Barrier(4)

        def ask(name: str, place: Path, start: threading.Barrier) -> None:
            start.wait()
            owners.append(LocalStore(place).get_or_set_owner(name))

        place = root / str(round_)
        threads = [threading.Thread(target=ask, args=(name, place, start)) for name in "abcd"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(owners) == 4
        assert set(owners) == {LocalStore(place).get_or_set_owner("e")}
        assert [file.name for file in LocalStore(place).list_files()] == []


def test_nothing_is_written_to_an_empty_mount_point(
    store: LocalStore, root: Path, tmp_path: Path
) -> None:
    ref = store.move_directory_into_store(made(tmp_path / "out"), KEY)
    store.check_health()
    away = root.rename(tmp_path / "away")
    root.mkdir()
    later = made(tmp_path / "later")
    for use in (
        lambda: store.move_directory_into_store(later, f"{KEY}1"),
        lambda: store.local_directory(ref),
        lambda: store.get_or_set_owner("me"),
        lambda: list(store.list_files()),
        store.read_clock,
    ):
        with pytest.raises(StorageUnavailable, match="is its disk mounted"):
            use()
    assert list(root.iterdir()) == []
    root.rmdir()
    with pytest.raises(StorageUnavailable, match="is its disk mounted"):
        store.read_clock()
    assert not root.exists()
    away.rename(root)
    assert store.move_directory_into_store(later, f"{KEY}1").key == f"{KEY}1"
    manifest.verify(store.local_directory(ref))
