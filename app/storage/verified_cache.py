"""Verified copies, on this machine, of what is kept elsewhere.

Every process of the machine uses the same folder. An entry appears whole, by a rename, so that two
of them may fetch the same thing at once; each verifies what it meets for the first time, so that no
copy needs to survive a power cut.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from lora_core.errors.artifact import ArtifactCorrupt

GRACE_SECONDS = 3600.0  # whoever was given an entry has read it by then

Step = Callable[[Path], None]
Signature = tuple[tuple[str, int, int], ...]


class Cache:
    """A folder of entries, each a directory; the least recently used go first."""

    def __init__(self, root: Path, *, limit: int) -> None:
        self.root = root
        self._limit = limit  # bytes
        # Entry → digest and signature of what this process has read to the last byte.
        self._verified: dict[str, tuple[str, Signature]] = {}

    def entry(self, key: str, digest: str, *, fetch: Step, verify: Step) -> Path:
        """The copy of `key`. One that is not there, or fails `verify`, is fetched anew.

        `verify` raises `ArtifactCorrupt` unless it finds `digest`; what a fetch brings is verified
        as well.
        """
        place = self.root / entry_name(key)
        if not self._is_whole(place, digest, verify):
            self.root.mkdir(parents=True, exist_ok=True)
            self._make(place, digest, fetch, verify)
            self.shrink(spare=place.name)
        os.utime(place)
        return place

    def names(self) -> list[str]:
        """The entries that there are."""
        return sorted(path.name for path in self.root.glob("*") if not path.name.startswith("."))

    def bytes(self, name: str) -> int:
        """Size of an entry."""
        return sum(size for _, size, _ in _signature(self.root / name))

    def age(self, name: str) -> float:
        """Seconds since an entry was last asked for."""
        try:
            return time.time() - (self.root / name).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def forget(self, name: str) -> None:
        """Remove an entry."""
        doomed = self._hidden()
        try:
            (self.root / name).rename(doomed / name)  # out of sight, so that no one sees a half
        except FileNotFoundError:
            return
        finally:
            shutil.rmtree(doomed, ignore_errors=True)
            self._verified.pop(name, None)

    def shrink(self, *, spare: str = "") -> None:
        """Remove what was not used for longest until the rest fits. Nothing in use goes."""
        with self._locked():
            for path in self.root.glob(".*"):  # of a process that was killed
                if path.is_dir() and self.age(path.name) > GRACE_SECONDS:
                    shutil.rmtree(path, ignore_errors=True)
            total = 0
            for name in sorted(self.names(), key=self.age):
                total += self.bytes(name)
                if total > self._limit and name != spare and self.age(name) > GRACE_SECONDS:
                    self.forget(name)

    def _is_whole(self, place: Path, digest: str, verify: Step) -> bool:
        signature = _signature(place)
        if not signature:
            return False
        if (digest, signature) == self._verified.get(place.name):
            return True
        try:
            verify(place)
        except (ArtifactCorrupt, OSError):  # whatever it is, another copy can be had
            return False
        self._verified[place.name] = digest, signature
        return True

    def _make(self, place: Path, digest: str, fetch: Step, verify: Step) -> None:
        unfinished = self._hidden()
        try:
            fetch(unfinished)
            verify(unfinished)
            with self._locked():
                if not self._is_whole(place, digest, verify):  # no other process was faster
                    self.forget(place.name)
                    unfinished.rename(place)
                    self._verified[place.name] = digest, _signature(place)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _hidden(self) -> Path:
        hidden = self.root / f".{uuid4().hex}"  # no key begins with a dot
        hidden.mkdir()
        return hidden

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Against the other processes of this machine; the system unlocks when one dies."""
        with (self.root / ".lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def entry_name(key: str) -> str:
    """A key as the name of one folder; keys have no underscore."""
    return key.replace("/", "_")


def _signature(place: Path) -> Signature:
    """Names, sizes and times of the files of an entry; empty if it is not there."""
    try:
        return tuple(
            (path.relative_to(place).as_posix(), facts.st_size, facts.st_mtime_ns)
            for path in sorted(place.rglob("*"))
            if path.is_file()
            for facts in (path.lstat(),)
        )
    except FileNotFoundError:
        return ()
