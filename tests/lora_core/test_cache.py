import errno
import os
from pathlib import Path

import pytest

from lora_core.atomic_files import atomic_path
from lora_core.cache import (
    cache_dir,
    delete_derived_from_texts,
    evict_least_recently_used,
)
from lora_core.errors.training import DiskFull


def test_cache_directory_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("LORAWORKS_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "loraworks"


def test_cache_entry_is_published_atomically(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "entry"
    with atomic_path(final) as unfinished:
        unfinished.write_text("whole")
        assert not final.exists()
    assert final.read_text() == "whole"
    assert list(final.parent.iterdir()) == [final]


def test_failed_build_leaves_no_files(tmp_path: Path) -> None:
    def fail() -> None:
        with atomic_path(tmp_path / "entry") as unfinished:
            unfinished.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_first_of_two_concurrent_builds_wins(tmp_path: Path) -> None:
    final = tmp_path / "entry"
    with atomic_path(final) as slow:
        slow.mkdir()
        (slow / "who").write_text("slow")
        with atomic_path(final) as fast:
            fast.mkdir()
            (fast / "who").write_text("fast")
    assert (final / "who").read_text() == "fast"
    assert list(tmp_path.iterdir()) == [final]


@pytest.mark.parametrize("what", [None, "a checkpoint"])
def test_full_disk_has_its_own_error(tmp_path: Path, what: str | None) -> None:
    with (
        pytest.raises(DiskFull, match=f"while writing {what or 'the cache entry entry'}"),
        atomic_path(tmp_path / "entry", what=what),
        Path("/dev/full").open("w") as full,
    ):
        full.write("more than there is room for")
    with pytest.raises(PermissionError), atomic_path(tmp_path / "entry"):
        raise PermissionError(errno.EACCES, "not a matter of room")


def test_least_recently_used_files_are_evicted_first(tmp_path: Path) -> None:
    for age, name in enumerate(["new", "old", "oldest"]):
        (tmp_path / name).write_bytes(b"x" * 10)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    evict_least_recently_used(tmp_path, 20)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
    evict_least_recently_used(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_unfinished_entries_stay_for_a_day(tmp_path: Path) -> None:
    """A process that was killed leaves one behind; others are being written."""
    with atomic_path(tmp_path / "entry") as unfinished:
        unfinished.write_bytes(b"x" * 10)
        (tmp_path / ".making-0-killed").touch()
        os.utime(tmp_path / ".making-0-killed", (1, 1))
        (tmp_path / "newest").write_bytes(b"x" * 10)
        evict_least_recently_used(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entry", "newest"]


def test_only_what_texts_can_be_read_from_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LORAWORKS_CACHE", str(tmp_path))
    delete_derived_from_texts()  # where there is none
    for folder in ("tokens", "features", "bases"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "entry").touch()
    with atomic_path(tmp_path / "tokens" / "unfinished") as unfinished:
        unfinished.touch()
        delete_derived_from_texts()
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["bases/entry", "tokens/unfinished"]
