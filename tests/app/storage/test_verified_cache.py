"""Cache entries are complete, shared by all processes of a host, and limited in size."""

import os
import threading
import time
from pathlib import Path

import pytest

from app.storage.verified_cache import EVICTION_GRACE_SECONDS, VerifiedCache
from lora_core import manifest
from lora_core.errors.artifact import ArtifactCorrupt
from tests.app.storage.stores import bytes_of

SIZE = 1000
LONG_AGO = time.time() - 10 * EVICTION_GRACE_SECONDS


class Origin:
    """The origin of the copies, which counts its requests."""

    def __init__(self, content: bytes = b"x" * SIZE) -> None:
        self.content = content
        self.fetched: list[str] = []
        self.seconds = 0.0  # that a request takes

    def get(self, cache: VerifiedCache, key: str, digest: str | None = None) -> Path:
        wanted = digest or key

        def fetch(directory: Path) -> None:
            self.fetched.append(key)
            time.sleep(self.seconds)
            (directory / "file").write_bytes(self.content)

        def verify(directory: Path) -> None:
            if (directory / "file").read_bytes() != self.content or wanted == "other":
                raise ArtifactCorrupt(path=key, problem="changed")

        return cache.get(key, wanted, fetch=fetch, verify=verify)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def origin() -> Origin:
    return Origin()


def age(root: Path, name: str, by: float = 0.0) -> None:
    """Set an entry's last use to long ago."""
    os.utime(root / name, (LONG_AGO + by, LONG_AGO + by))


def test_entry_is_fetched_once(root: Path, origin: Origin) -> None:
    cache = VerifiedCache(root, limit=10 * SIZE)
    assert origin.get(cache, "a/b") == origin.get(cache, "a/b")
    assert origin.fetched == ["a/b"]


def test_another_process_verifies_without_fetching(root: Path, origin: Origin) -> None:
    origin.get(VerifiedCache(root, limit=10 * SIZE), "a")
    origin.get(VerifiedCache(root, limit=10 * SIZE), "a")
    assert origin.fetched == ["a"]


@pytest.mark.parametrize("whose", ["own", "of another process"])
@pytest.mark.parametrize("harm", ["changed", "cut", "removed", "added", "unreadable"])
def test_changed_entry_is_fetched_again(root: Path, origin: Origin, harm: str, whose: str) -> None:
    cache = VerifiedCache(root, limit=10 * SIZE)
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
    cache = cache if whose == "own" else VerifiedCache(root, limit=10 * SIZE)
    assert (origin.get(cache, "a") / "file").read_bytes() == origin.content
    assert origin.fetched == ["a", "a"]


def test_entry_is_valid_only_for_its_digest(root: Path, origin: Origin) -> None:
    cache = VerifiedCache(root, limit=10 * SIZE)
    origin.get(cache, "a")
    with pytest.raises(ArtifactCorrupt):
        origin.get(cache, "a", "other")


def test_fetched_content_that_fails_verification_is_not_cached(root: Path) -> None:
    with pytest.raises(ArtifactCorrupt):
        Origin().get(VerifiedCache(root, limit=SIZE), "a", "other")
    assert bytes_of(root) == 0
    assert [path for path in root.iterdir() if path.is_dir()] == []


def test_least_recently_used_entries_are_evicted(root: Path, origin: Origin) -> None:
    cache = VerifiedCache(root, limit=3 * SIZE)
    for i, key in enumerate("abc"):
        origin.get(cache, key)
        age(root, key, by=i)
    origin.get(cache, "a")  # recently used
    origin.get(cache, "d")
    assert cache.names() == ["a", "c", "d"]
    assert bytes_of(root) <= 3 * SIZE


def test_entries_in_use_are_not_evicted(root: Path, origin: Origin) -> None:
    cache = VerifiedCache(root, limit=0)
    for key in "abc":
        origin.get(cache, key)
    assert cache.names() == ["a", "b", "c"]
    age(root, "b")
    origin.get(VerifiedCache(root, limit=0), "c")  # a cache hit evicts nothing
    cache.evict()
    assert cache.names() == ["a", "c"]


def test_leftovers_of_a_killed_process_are_removed(root: Path, origin: Origin) -> None:
    cache = VerifiedCache(root, limit=10 * SIZE)
    for name in (".old", ".new"):
        (root / name).mkdir(parents=True)
        (root / name / "file").write_bytes(b"half")
    age(root, ".old/file")
    age(root, ".old")
    origin.get(cache, "a")
    assert not (root / ".old").exists()
    assert (root / ".new").exists()
    assert cache.names() == ["a"]


def test_download_that_writes_one_file_for_hours_is_not_removed(root: Path, origin: Origin) -> None:
    """Writing to a file does not change the time of its directory."""
    cache = VerifiedCache(root, limit=10 * SIZE)
    (root / ".download").mkdir(parents=True)
    (root / ".download" / "file").write_bytes(b"half")
    age(root, ".download")
    origin.get(cache, "a")
    assert (root / ".download" / "file").exists()


def test_entry_is_not_evicted_while_it_is_verified(root: Path, origin: Origin) -> None:
    origin.get(VerifiedCache(root, limit=0), "a")
    age(root, "a")

    def verify(_: Path) -> None:
        VerifiedCache(root, limit=0).evict()  # as another process does

    entry = VerifiedCache(root, limit=0).get("a", "a", fetch=lambda _: None, verify=verify)
    assert (entry / "file").exists()


@pytest.mark.parametrize("whose", ["own", "of other processes"])
def test_concurrent_fetches_of_the_same_key(root: Path, origin: Origin, whose: str) -> None:
    """Threads of one process share a download."""
    shared = VerifiedCache(root, limit=0)
    start = threading.Barrier(4)
    digests: list[str] = []
    origin.seconds = 0.2

    def get() -> None:
        cache = shared if whose == "own" else VerifiedCache(root, limit=0)
        start.wait()
        digests.append(manifest.file_sha256(origin.get(cache, "a") / "file"))

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(digests) == 4
    assert len(set(digests)) == 1
    assert len(origin.fetched) == 1 or whose != "own"
    assert [path.name for path in root.iterdir() if path.is_dir()] == ["a"]
