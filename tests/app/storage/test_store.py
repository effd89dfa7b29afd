"""Guarantees of every store: atomic, immutable, verified."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from app.storage.errors import ArtifactExists
from app.storage.store import Store, find_regular_file
from lora_core import manifest
from lora_core.errors.artifact import ArtifactCorrupt
from tests.app.storage.stores import KEY, WEIGHTS, bytes_of, made, putting, ref_of
from tests.slow import slow_but
from tests.waiting import wait_until

FILE = "uploads/0197c5d2-7a3e-7000-8000-000000000002/reviews.csv"


def test_put_stores_a_directory(store: Store, tmp_path: Path) -> None:
    source = made(tmp_path / "out")
    expected, total = ref_of(source), bytes_of(source)
    ref = store.move_directory_into_store(source, KEY)
    assert ref == expected
    assert ref.bytes == total
    assert not source.exists()
    assert (store.local_directory(ref) / WEIGHTS).read_text() == "weights"
    manifest.verify(store.local_directory(ref))


def test_read_returns_one_file(store: Store, tmp_path: Path) -> None:
    source = made(tmp_path / "out")
    listing = (source / manifest.MANIFEST_FILE).read_bytes()
    ref = store.move_directory_into_store(source, KEY)
    assert store.read(ref, manifest.MANIFEST_FILE) == listing
    assert store.read(ref, WEIGHTS) == b"weights"
    for name in ("merged/other", "../a1/manifest.json"):
        with pytest.raises(ArtifactCorrupt, match="there is no"):
            store.read(ref, name)
    with pytest.raises(ArtifactCorrupt, match=r"manifest.json has changed"):
        store.read(replace(ref, manifest_sha256="0" * 64), WEIGHTS)
    with pytest.raises(ArtifactCorrupt, match=r"manifest.json is missing"):
        store.read(replace(ref, key=f"{KEY}0"), WEIGHTS)


def test_files_below_a_link_are_found(tmp_path: Path) -> None:
    """The cache of a store in S3 is in the data directory, which may be one."""
    source = made(tmp_path / "disk" / "a1")
    (source / "inside").symlink_to(source / WEIGHTS)
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    directory = tmp_path / "data" / "a1"
    assert find_regular_file(directory, WEIGHTS) == directory / WEIGHTS
    for name in ("inside", "../a1/manifest.json", str(source / WEIGHTS), "merged"):
        assert find_regular_file(directory, name) is None


def test_large_file_is_stored_unchanged(store: Store, tmp_path: Path) -> None:
    source = tmp_path / "out"
    source.mkdir()
    content = os.urandom(2**20) * 20  # several parts of an upload
    (source / "model").write_bytes(content)
    manifest.create_and_save(source, {})
    assert (
        store.local_directory(store.move_directory_into_store(source, KEY)) / "model"
    ).read_bytes() == content


def test_key_can_be_used_only_once(store: Store, tmp_path: Path) -> None:
    ref = store.move_directory_into_store(made(tmp_path / "one", "first"), KEY)
    second = made(tmp_path / "two", "second")
    with pytest.raises(ArtifactExists):
        store.move_directory_into_store(second, KEY)
    assert (second / WEIGHTS).read_text() == "second"
    assert (store.local_directory(ref) / WEIGHTS).read_text() == "first"


def test_putting_the_same_bytes_again_succeeds(store: Store, tmp_path: Path) -> None:
    ref = store.move_directory_into_store(made(tmp_path / "one"), KEY)
    again = made(tmp_path / "two")
    assert store.move_directory_into_store(again, KEY) == ref
    assert not again.exists()
    manifest.verify(store.local_directory(ref))


@pytest.mark.parametrize("store_settings", slow_but(["local", "s3"], "s3"), indirect=True)
@pytest.mark.parametrize("rounds", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_only_one_of_two_processes_gets_the_key(store: Store, tmp_path: Path, rounds: int) -> None:
    for round_ in range(rounds):
        key = f"jobs/race/a{round_}"
        sources = [made(tmp_path / f"{round_}-{i}", f"text {i} " * 10_000) for i in range(2)]
        refs = [ref_of(source, key) for source in sources]
        processes = [putting(source, key) for source in sources]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        outputs = [process.communicate()[0].strip() for process in processes]
        assert sorted(output == "taken" for output in outputs) == [False, True]
        winner = next(ref for ref, output in zip(refs, outputs, strict=True) if output != "taken")
        manifest.verify(store.local_directory(winner))


def test_killed_put_leaves_no_directory(store: Store, tmp_path: Path) -> None:
    source = made(tmp_path / "out")
    ref = ref_of(source)
    process = putting(source, LORAWORKS_FAULT="store_files_written:kill")
    process.communicate("go\n")
    assert process.returncode == -9
    with pytest.raises(ArtifactCorrupt):
        store.local_directory(ref)
    assert store.move_directory_into_store(source, KEY) == ref  # it can be repeated
    manifest.verify(store.local_directory(ref))


def test_incomplete_directory_does_not_exist(store: Store, tmp_path: Path) -> None:
    store.move_directory_into_store(made(tmp_path / "parallel"), f"{KEY}0")
    source, pause = made(tmp_path / "out"), tmp_path / "pause"
    ref = ref_of(source)
    pause.touch()
    process = putting(source, LORAWORKS_FAULT=f"store_files_written:pause:{pause}")
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    try:
        with pytest.raises(ArtifactCorrupt):
            store.local_directory(ref)
    finally:
        pause.unlink()
    wait_until(lambda: process.poll() is not None, what="the put")
    manifest.verify(store.local_directory(ref))
    process.communicate()


def test_full_disk_is_reported(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made(tmp_path / "out")
    monkeypatch.setenv("LORAWORKS_FAULT", "store_files_written:enospc")
    with pytest.raises(OSError, match="No space left"):
        store.move_directory_into_store(source, KEY)
    assert source.exists()


def test_directory_that_fails_verification_is_rejected(store: Store, tmp_path: Path) -> None:
    source = made(tmp_path / "out")
    ref = ref_of(source)
    (source / WEIGHTS).write_text("changed")
    with pytest.raises(ArtifactCorrupt, match="safetensors has changed"):
        store.move_directory_into_store(source, KEY)
    assert source.exists()
    assert list(store.list_files()) == []
    store.move_directory_into_store(made(tmp_path / "other"), f"{KEY}0")
    with pytest.raises(ArtifactCorrupt, match="missing"):
        store.local_directory(ref)


def test_directory_with_a_symlink_is_rejected(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("weights")
    source = made(tmp_path / "out")
    (source / WEIGHTS).unlink()
    (source / WEIGHTS).symlink_to(secret)
    with pytest.raises(ArtifactCorrupt, match="not a regular file"):
        store.move_directory_into_store(source, KEY)
    assert list(store.list_files()) == []


@pytest.mark.parametrize(
    "key",
    ["", "/", "..", "../x", "jobs/../../x", "/etc", "jobs//a", "Jobs/A", "a b", "a\\b", "a\x00",
     "é", ".x", "a/", "jobs/.unfinished", "x" * 65, "$(id)", "a\n", ".unfinished/..", "a/b.csv/c",
     "../b.csv", "a/..csv", "a/b.c/../d.csv"],
)  # fmt: skip
def test_invalid_keys_are_rejected(store: Store, tmp_path: Path, key: str) -> None:
    source = made(tmp_path / "out")
    ref = ref_of(source, key)
    for use in (
        lambda: store.move_directory_into_store(source, key),
        lambda: store.local_directory(ref),
        lambda: store.delete(key),
        lambda: store.move_file_into_store(source / WEIGHTS, key),
        lambda: store.verified_file(key, "0" * 64),
    ):
        with pytest.raises(ValueError, match="not a store key"):
            use()
    manifest.verify(source)


def test_delete_is_idempotent(store: Store, tmp_path: Path) -> None:
    store.move_directory_into_store(made(tmp_path / "parallel"), f"{KEY}0")
    ref = store.move_directory_into_store(made(tmp_path / "out"), KEY)
    store.delete(KEY)
    assert {file.name.rsplit("/", 1)[0] for file in store.list_files()} == {
        f"{KEY}0",
        f"{KEY}0/merged",
    }
    store.delete(KEY)
    with pytest.raises(ArtifactCorrupt):
        store.read(ref, WEIGHTS)


def test_file_round_trip(store: Store, tmp_path: Path) -> None:
    upload = tmp_path / "file.csv"
    upload.write_text("text,label\n")
    digest = manifest.file_sha256(upload)
    store.move_file_into_store(upload, FILE)
    assert not upload.exists()
    stored = store.verified_file(FILE, digest)
    assert (stored.name, stored.read_text()) == ("reviews.csv", "text,label\n")
    upload.write_text("other")
    with pytest.raises(ArtifactExists):
        store.move_file_into_store(upload, FILE)
    with pytest.raises(ArtifactCorrupt):
        store.verified_file(FILE, "0" * 64)
    store.delete(FILE)
    assert list(store.list_files()) == []
    store.move_file_into_store(upload, FILE.replace("2/", "4/"))
    with pytest.raises(ArtifactCorrupt):
        store.verified_file(FILE.replace("2/", "3/"), digest)


def test_list_files_has_sizes_and_times(store: Store, tmp_path: Path) -> None:
    before = store.read_clock()
    source = made(tmp_path / "out")
    for path in source.rglob("*"):
        os.utime(path, (0, 0))  # written long ago, but stored now
    sizes = {
        f"{KEY}/{path.relative_to(source).as_posix()}": path.stat().st_size
        for path in source.rglob("*")
        if path.is_file()
    }
    store.move_directory_into_store(source, KEY)
    files = {file.name: file for file in store.list_files() if not file.name.endswith(".claim")}
    assert {name: file.bytes for name, file in files.items()} == sizes
    assert before - 1 <= files[f"{KEY}/manifest.json"].modified <= store.read_clock() + 1


def test_first_candidate_owns_the_store(store: Store) -> None:
    assert store.get_or_set_owner(None) is None  # reading does not claim it
    assert store.get_or_set_owner("one") == "one"
    assert [store.get_or_set_owner("two"), store.get_or_set_owner(None)] == ["one", "one"]


def test_working_store_passes_its_check(store: Store) -> None:
    store.check_health()
    assert list(store.list_files()) == []
