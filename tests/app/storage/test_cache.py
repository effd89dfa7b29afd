"""Copies are whole, shared by all processes of a machine, and few."""

import os
import threading
import time
from pathlib import Path

import pytest

from app.storage.verified_cache import GRACE_SECONDS, Cache
from lora_core import manifest
from lora_core.errors.artifact import ArtifactCorrupt
from tests.app.storage.stores import bytes_of

SIZE = 1000
LONG_AGO = time.time() - 10 * GRACE_SECONDS


class Origin:
    """Where copies come from; counts what it is asked for."""

    def __init__(self, content: bytes = b"x" * SIZE) -> None:
        self.content = content
        self.fetched: list[str] = []

    def get(self, cache: Cache, key: str, digest: str | None = None) -> Path:
        wanted = digest or key

        def fetch(directory: Path) -> None:
            self.fetched.append(key)
            (directory / "file").write_bytes(self.content)

        def verify(directory: Path) -> None:
            if (directory / "file").read_bytes() != self.content or wanted == "other":
                raise ArtifactCorrupt(path=key, problem="changed")

        return cache.entry(key, wanted, fetch=fetch, verify=verify)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def origin() -> Origin:
    return Origin()


def age(root: Path, name: str, by: float = 0.0) -> None:
    """As if the entry was last used long ago."""
    os.utime(root / name, (LONG_AGO + by, LONG_AGO + by))


def test_a_copy_is_fetched_once(root: Path, origin: Origin) -> None:
    cache = Cache(root, limit=10 * SIZE)
    assert origin.get(cache, "a/b") == origin.get(cache, "a/b")
    assert origin.fetched == ["a/b"]


def test_another_process_verifies_and_does_not_fetch(root: Path, origin: Origin) -> None:
    origin.get(Cache(root, limit=10 * SIZE), "a")
    origin.get(Cache(root, limit=10 * SIZE), "a")
    assert origin.fetched == ["a"]


@pytest.mark.parametrize("whose", ["own", "of another process"])
@pytest.mark.parametrize("harm", ["changed", "cut", "removed", "added", "unreadable"])
def test_a_copy_that_was_changed_is_fetched_again(
    root: Path, origin: Origin, harm: str, whose: str
) -> None:
    cache = Cache(root, limit=10 * SIZE)
    file = origin.get(cache, "a") / "file"
    match harm:
        case "changed":
            file.write_bytes(b"y" * SIZE)
        case "cut":
            file.write_bytes(b"")
        case "removed":
            file.unlink()
        case "added":
            file.write_bytes(b"x" * SIZE + b"x")
        case "unreadable":
            file.unlink()
            (file / "inside").mkdir(parents=True)
            (file / "inside" / "file").touch()
    cache = cache if whose == "own" else Cache(root, limit=10 * SIZE)
    assert (origin.get(cache, "a") / "file").read_bytes() == origin.content
    assert origin.fetched == ["a", "a"]


def test_a_copy_is_good_for_its_digest_only(root: Path, origin: Origin) -> None:
    cache = Cache(root, limit=10 * SIZE)
    origin.get(cache, "a")
    with pytest.raises(ArtifactCorrupt):
        origin.get(cache, "a", "other")


def test_what_fails_its_check_is_no_copy(root: Path) -> None:
    with pytest.raises(ArtifactCorrupt):
        Origin().get(Cache(root, limit=SIZE), "a", "other")
    assert bytes_of(root) == 0
    assert [path for path in root.iterdir() if path.is_dir()] == []


def test_the_least_used_go_first(root: Path, origin: Origin) -> None:
    cache = Cache(root, limit=3 * SIZE)
    for i, key in enumerate("abc"):
        origin.get(cache, key)
        age(root, key, by=i)
    origin.get(cache, "a")  # used now
    origin.get(cache, "d")
    assert cache.names() == ["a", "c", "d"]
    assert bytes_of(root) <= 3 * SIZE


def test_what_is_in_use_stays_even_when_it_is_too_much(root: Path, origin: Origin) -> None:
    cache = Cache(root, limit=0)
    for key in "abc":
        origin.get(cache, key)
    assert cache.names() == ["a", "b", "c"]
    age(root, "b")
    origin.get(Cache(root, limit=0), "c")  # there already: nothing is removed
    cache.shrink()
    assert cache.names() == ["a", "c"]


def test_what_a_killed_process_left_is_removed(root: Path, origin: Origin) -> None:
    cache = Cache(root, limit=10 * SIZE)
    for name in (".old", ".new"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_bytes(b"half")
    age(root, ".old")
    origin.get(cache, "a")
    assert not (root / ".old").exists()
    assert (root / ".new").exists()
    assert cache.names() == ["a"]


def test_many_may_fetch_the_same_at_once(root: Path, origin: Origin) -> None:
    start = threading.Barrier(4)
    found: list[str] = []

    def get() -> None:
        start.wait()
        found.append(manifest.sha256(origin.get(Cache(root, limit=0), "a") / "file"))

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["a"]
