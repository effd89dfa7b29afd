"""Verified local copies of the content of a remote store.

All processes of a host share one cache directory. An entry appears atomically, by a rename, so that
two processes may fetch the same key at once. Each process verifies an entry on first use, so that
entries need not survive a power failure.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from uuid import uuid4

from lora_core.errors.artifact import ArtifactCorrupt

EVICTION_GRACE_SECONDS = 3600.0  # an entry used within this time may still be read

_DirectoryStep = Callable[[Path], None]
_Signature = tuple[tuple[str, int, int], ...]


class VerifiedCache:
    """A cache directory with one subdirectory per entry, and LRU eviction. Threads may share it."""

    def __init__(self, root: Path, *, limit: int) -> None:
        self.root = root
        self._limit = limit  # bytes
        # Entry name → digest and signature of the content that this process has verified.
        self._verified: dict[str, tuple[str, _Signature]] = {}
        self._key_locks: dict[str, Lock] = {}  # so that threads do not fetch the same key at once

    def get(self, key: str, digest: str, *, fetch: _DirectoryStep, verify: _DirectoryStep) -> Path:
        """Return the local copy of `key`. A missing copy, or one that fails `verify`, is fetched.

        `verify` raises `ArtifactCorrupt` unless the content has `digest`. Fetched content is
        verified, too.
        """
        entry = self.root / entry_name(key)
        with self._key_locks.setdefault(entry.name, Lock()):
            if not (_touch(entry) and self._is_valid(entry, digest, verify)):
                self.root.mkdir(parents=True, exist_ok=True)
                self._populate(entry, digest, fetch, verify)
                self.evict(keep=entry.name)
        return entry

    def names(self) -> list[str]:
        """Return the names of all entries."""
        return sorted(path.name for path in self.root.glob("*") if not path.name.startswith("."))

    def entry_size_bytes(self, name: str) -> int:
        """Return the size of an entry."""
        return sum(size for _, size, _ in _signature(self.root / name))

    def idle_seconds(self, name: str) -> float:
        """Return the seconds since an entry was last used."""
        try:
            return time.time() - (self.root / name).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def remove(self, name: str) -> None:
        """Remove an entry."""
        trash = self._temporary_path()
        try:
            (self.root / name).rename(trash / name)  # hide it, so that no process sees a part
        except FileNotFoundError:
            return
        finally:
            shutil.rmtree(trash, ignore_errors=True)
            self._verified.pop(name, None)

    def evict(self, *, keep: str = "") -> None:
        """Remove the least recently used entries until the rest fits, but none in use."""
        with self._locked():
            for path in self.root.glob(".*"):  # left behind by a killed process
                if path.is_dir() and _unchanged_seconds(path) > EVICTION_GRACE_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)
            total = 0
            for name in sorted(self.names(), key=self.idle_seconds):
                total += self.entry_size_bytes(name)
                idle = self.idle_seconds(name) > EVICTION_GRACE_SECONDS
                if total > self._limit and name != keep and idle:
                    self.remove(name)

    def _is_valid(self, entry: Path, digest: str, verify: _DirectoryStep) -> bool:
        signature = _signature(entry)
        if not signature:
            return False
        if (digest, signature) == self._verified.get(entry.name):
            return True
        try:
            verify(entry)
        except (ArtifactCorrupt, OSError):  # whatever the error is, fetch it again
            return False
        self._verified[entry.name] = digest, signature
        return True

    def _populate(
        self, entry: Path, digest: str, fetch: _DirectoryStep, verify: _DirectoryStep
    ) -> None:
        unfinished = self._temporary_path()
        try:
            fetch(unfinished)
            verify(unfinished)
            with self._locked():
                if not self._is_valid(entry, digest, verify):  # unless another process was faster
                    self.remove(entry.name)
                    unfinished.rename(entry)
                    self._verified[entry.name] = digest, _signature(entry)
                _touch(entry)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _temporary_path(self) -> Path:
        path = self.root / f".{uuid4().hex}"  # no key begins with a dot
        path.mkdir()
        return path

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the cache against other processes. The kernel unlocks it when a process dies."""
        with (self.root / ".lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def entry_name(key: str) -> str:
    """Return the name of the key's subdirectory; keys have no underscore."""
    return key.replace("/", "_")


def _touch(entry: Path) -> bool:
    """Mark an entry as used now, so that no process evicts it. Return whether it exists."""
    try:
        os.utime(entry)
    except FileNotFoundError:
        return False
    return True


def _unchanged_seconds(directory: Path) -> float:
    """Return the seconds since the last write to a directory or to a file of it."""
    try:
        written = directory.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    return time.time() - max([written, *(ns / 1e9 for _, _, ns in _signature(directory))])


def _signature(entry: Path) -> _Signature:
    """Return names, sizes and times of the files of an entry; empty if it does not exist."""
    try:
        return tuple(
            (path.relative_to(entry).as_posix(), stat.st_size, stat.st_mtime_ns)
            for path in sorted(entry.rglob("*"))
            if path.is_file()
            for stat in (path.lstat(),)
        )
    except FileNotFoundError:
        return ()
