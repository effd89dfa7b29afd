"""The store: what outlives a process, under keys that are made from ids.

A key names a directory with a manifest (a model, a checkpoint) or one file (an upload). What is
under a key never changes; it is there in full or not at all.

    jobs/<job>/a<attempt>                  model
    predictions/<run>/a<attempt>           results of a prediction run
    checkpoints/<job>/a<attempt>/step-<n>  checkpoint
    uploads/<data set>/<file>              upload
    imports/<id>                           model that was made elsewhere
"""

import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock

import structlog

from app.errors import AppError
from app.storage.errors import StorageRefused, StorageUnavailable
from lora_core import manifest
from lora_core.errors.artifact import ArtifactCorrupt

CHECK_SECONDS = 5.0  # how long the outcome of a check holds, so that no caller can make it costly
CHECKPOINTS = "checkpoints"  # first part of their keys
# No key begins with a dot.
PROBE = ".check"
OWNER = ".owner"
UNFINISHED = ".unfinished"
OUR_OWN = (PROBE, OWNER)

_DIRECTORY = re.compile(r"[a-z0-9-]{1,64}(/[a-z0-9-]{1,64}){0,7}")
_LEFTOVER = re.compile(rf"\{UNFINISHED}/[0-9a-f]{{32}}")
_FILE = re.compile(r"[a-z0-9-]{1,64}(/[a-z0-9-]{1,64}){1,7}\.[a-z0-9]{1,16}")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ArtifactRef:
    """A stored directory: its place, what names its content, its size."""

    key: str
    manifest_sha256: str
    bytes: int


@dataclass(frozen=True)
class StoredFile:
    """One file in the store, with the time at which it came, on the clock of the store."""

    name: str
    bytes: int
    modified: float  # seconds since 1970


class Store(ABC):
    """Safe to share between threads.

    Everything here raises `StorageUnavailable` when the store does not answer, `StorageRefused`
    when it will not let us in, and leaves a full disk as the `OSError` that it is.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._checked: tuple[float, AppError | None] | None = None

    @abstractmethod
    def put(self, directory: Path, key: str) -> ArtifactRef:
        """Check `directory` against its manifest and take it in; afterwards it is gone.

        The same bytes again change nothing. Raises `ArtifactCorrupt`, and `ArtifactExists` if the
        key holds other bytes; the directory then stays where it was.
        """

    @abstractmethod
    def path(self, ref: ArtifactRef) -> Path:
        """The directory, to read only. A copy of what is kept elsewhere has been verified.

        Raises `ArtifactCorrupt` when it is not there, or is no more what was put in.
        """

    @abstractmethod
    def verified(self, ref: ArtifactRef) -> Path:
        """The same, once every byte has been read and matches."""

    def read(self, ref: ArtifactRef, name: str) -> bytes:
        """One small file of the directory, without the others. Raises `ArtifactCorrupt`."""
        listing = self._content(f"{check_key(ref.key)}/{manifest.MANIFEST}")
        if sha256(listing).hexdigest() != ref.manifest_sha256:
            raise ArtifactCorrupt(path=ref.key, problem="manifest.json has changed")
        if name == manifest.MANIFEST:
            return listing
        facts = json.loads(listing)["files"].get(name)
        if facts is None:
            raise ArtifactCorrupt(path=ref.key, problem=f"there is no {name}")
        content = self._content(f"{ref.key}/{name}")
        if sha256(content).hexdigest() != facts["sha256"]:
            raise ArtifactCorrupt(path=ref.key, problem=f"{name} has changed")
        return content

    @abstractmethod
    def _content(self, name: str) -> bytes:
        """A file of a directory. Raises `ArtifactCorrupt` if it is missing."""

    @abstractmethod
    def put_file(self, path: Path, key: str) -> None:
        """Take a file in under a key that is fresh; afterwards it is gone from `path`."""

    @abstractmethod
    def file(self, key: str, sha256: str) -> Path:
        """The file, to read only. Raises `ArtifactCorrupt` unless its bytes are the right ones."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove what is under the key; a second time does nothing."""

    @abstractmethod
    def files(self) -> Iterator[StoredFile]:
        """Every file there is, unfinished ones too."""

    @abstractmethod
    def owner(self, candidate: str | None) -> str | None:
        """Whose store this is; the first candidate gets it. None: only look."""

    @abstractmethod
    def now(self) -> float:
        """The time on the clock of the store, found out by writing to it."""

    def check(self) -> None:
        """Whether the store can be written to; an answer holds for `CHECK_SECONDS`."""
        with self._lock:
            if self._checked is None or time.monotonic() - self._checked[0] > CHECK_SECONDS:
                self._checked = (time.monotonic(), self._problem())
            problem = self._checked[1]
        if problem is not None:
            raise type(problem)(**problem.detail)

    def _problem(self) -> AppError | None:
        try:
            self.now()
        except (StorageUnavailable, StorageRefused) as error:
            return error
        except OSError as error:  # full
            return StorageUnavailable(reason=error.strerror)
        return None

    def discard(self, key: str) -> None:
        """Delete what no row knows any more. What cannot be deleted now is swept up later."""
        try:
            self.delete(key)
        except (AppError, OSError) as error:
            log.warning("files are left to the sweep", key=key, reason=str(error))


def check_key(key: str) -> str:
    """The key of a directory. Raises `ValueError`: keys are made by this program."""
    if not _DIRECTORY.fullmatch(key):
        raise ValueError(f"not a store key: {key!r}")
    return key


def check_file_key(key: str) -> str:
    """The key of a file. Raises `ValueError`."""
    if not _FILE.fullmatch(key):
        raise ValueError(f"not a store key: {key!r}")
    return key


def check_any_key(key: str) -> str:
    """The key of a file, a directory, or something unfinished. Raises `ValueError`."""
    return key if _FILE.fullmatch(key) or _LEFTOVER.fullmatch(key) else check_key(key)


def describe(directory: Path, key: str) -> ArtifactRef:
    """What `directory` is under `key`, once every byte was checked. Raises `ArtifactCorrupt`."""
    for entry in directory.rglob("*"):
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise ArtifactCorrupt(path=directory.name, problem=f"{entry.name} is no plain file")
    facts = manifest.verify(directory)
    listed = directory / manifest.MANIFEST
    return ArtifactRef(
        key=key,
        manifest_sha256=manifest.sha256(listed),
        bytes=listed.stat().st_size + sum(file["bytes"] for file in facts["files"].values()),
    )


def check_copy(directory: Path, ref: ArtifactRef) -> None:
    """Raises `ArtifactCorrupt` unless `directory` holds what `ref` names, byte for byte."""
    manifest.verify(directory)
    if manifest.sha256(directory / manifest.MANIFEST) != ref.manifest_sha256:
        raise ArtifactCorrupt(path=ref.key, problem="manifest.json has changed")
