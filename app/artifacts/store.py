"""Where finished model directories are kept."""

import errno
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from app.artifacts.errors import ArtifactExists
from app.settings import Settings
from lora_core import manifest
from lora_core.errors import ArtifactCorrupt

_KEY = re.compile(r"[a-z0-9-]{1,64}(/[a-z0-9-]{1,64}){0,7}")
_HIDDEN = ".unfinished"  # no key begins with a dot


@dataclass(frozen=True)
class ArtifactRef:
    """A stored directory: its place, what names its content, its size."""

    key: str
    manifest_sha256: str
    bytes: int


class ArtifactStore(Protocol):
    """Immutable directories under keys that are made from ids."""

    def put(self, directory: Path, key: str) -> ArtifactRef: ...

    def path(self, key: str) -> Path: ...

    def delete(self, key: str) -> None: ...


class LocalStore:
    """A directory on this machine. What is in it is there in full or not at all."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root.resolve()

    def put(self, directory: Path, key: str) -> ArtifactRef:
        """Check `directory` against its manifest and move it in; afterwards it is gone.

        Raises `ArtifactCorrupt` and `ArtifactExists`; the directory then stays where it was.
        """
        target = self._place(key)
        if target.exists():
            raise ArtifactExists(key=key)
        for entry in directory.rglob("*"):
            if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                raise ArtifactCorrupt(path=directory.name, problem=f"{entry.name} is no plain file")
        facts = manifest.verify(directory)
        listed = directory / manifest.MANIFEST
        ref = ArtifactRef(
            key=key,
            manifest_sha256=manifest.sha256(listed),
            bytes=listed.stat().st_size + sum(file["bytes"] for file in facts["files"].values()),
        )
        self._move(directory, target)
        return ref

    def path(self, key: str) -> Path:
        """The directory, to read only. Raises `ArtifactCorrupt` when it is not there."""
        place = self._place(key)
        if not place.is_dir():
            raise ArtifactCorrupt(path=key, problem="the directory is missing")
        return place

    def delete(self, key: str) -> None:
        """Remove the directory; a second time does nothing."""
        place = self._place(key)
        doomed = self._hidden()
        try:
            place.rename(doomed)  # first out of sight, so that no one sees a half
        except FileNotFoundError:
            return
        shutil.rmtree(doomed)

    def _place(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"not a store key: {key!r}")
        place = self._root / key
        if place.resolve() != place or not place.is_relative_to(self._root):
            raise ValueError(f"the store key {key!r} leads out of the store")
        return place

    def _hidden(self) -> Path:
        hidden = self._root / _HIDDEN
        hidden.mkdir(exist_ok=True)
        return hidden / uuid4().hex

    def _move(self, directory: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sync(directory)
        try:
            _rename(directory, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy = self._hidden()
            try:
                shutil.copytree(directory, copy)
                _sync(copy)
                _rename(copy, target)
            except BaseException:
                shutil.rmtree(copy, ignore_errors=True)
                raise
            shutil.rmtree(directory)
        _sync_one(target.parent)


def open_store(settings: Settings) -> ArtifactStore:
    """The store that the settings name."""
    return LocalStore(settings.artifacts_dir)


def _rename(source: Path, target: Path) -> None:
    """Rename a directory; a non-empty one in its place is an error on every system."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise ArtifactExists(key=target.name) from error
        raise


def _sync(directory: Path) -> None:
    """Bring files and names to the disk, so that the rename does not outrun them."""
    for entry in directory.rglob("*"):
        _sync_one(entry)
    _sync_one(directory)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
