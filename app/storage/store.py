"""The artifact store, which keeps files under keys that are made from ids.

A key identifies a directory with a manifest (a model, a checkpoint) or a single file (an upload).
The content of a key is immutable, and either complete or absent.

    jobs/<job>/a<attempt>                  model
    predictions/<run>/a<attempt>           results of a prediction run
    checkpoints/<job>/a<attempt>/step-<n>  checkpoint
    vectors/<job>/a<attempt>               vectors of a labeling project's texts
    uploads/<dataset>/<file>               upload
    imports/<id>                           imported model
    bases/<job>/a<attempt>, bases/<id>     base of models: of the first one that needed it

Keys are never used again, so that the deletion of a directory cannot hit a newer one.
"""

import json
import os
import re
import tarfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any

import structlog

from app.errors import AppError
from app.storage.errors import StorageRefused, StorageUnavailable, StoredArtifactCorrupt
from lora_core import artifact_base_sharing, manifest
from lora_core.errors.artifact import ArtifactCorrupt

CHECK_TTL_SECONDS = 5.0  # a check result is cached this long, to bound the cost
CHECKPOINTS_PREFIX = "checkpoints"  # first part of checkpoint keys
# Reserved names: no key begins with a dot.
PROBE_FILE = ".check"
OWNER_FILE = ".owner"
UNFINISHED_PREFIX = ".unfinished"
RESERVED_FILES = (PROBE_FILE, OWNER_FILE)

_DIRECTORY_KEY_PATTERN = re.compile(r"[a-z0-9-]{1,64}(/[a-z0-9-]{1,64}){0,7}")
_UNFINISHED_KEY_PATTERN = re.compile(rf"\{UNFINISHED_PREFIX}/[0-9a-f]{{32}}")
_FILE_KEY_PATTERN = re.compile(r"[a-z0-9-]{1,64}(/[a-z0-9-]{1,64}){1,7}\.[a-z0-9]{1,16}")

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class ArtifactRef:
    """A reference to a stored directory: its key, the digest of its manifest, and its size.

    A model whose base is stored once for several models also refers to that directory.
    """

    key: str
    manifest_sha256: str
    bytes: int
    base: "ArtifactRef | None" = None


@dataclass(frozen=True)
class StoredFile:
    """One file in the store, and when it was stored, on the clock of the store."""

    name: str
    bytes: int
    modified: float  # seconds since 1970


class Store(ABC):
    """An artifact store. Safe to share between threads.

    All methods raise `StorageUnavailable` if the store does not respond and `StorageRefused` if it
    denies access. A full disk stays an `OSError`.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._checked: tuple[float, AppError | None] | None = None

    @abstractmethod
    def move_directory_into_store(self, directory: Path, key: str) -> ArtifactRef:
        """Verify `directory` against its manifest, and move it into the store.

        Repeating it with the same bytes changes nothing. Raises `ArtifactCorrupt`, and
        `ArtifactExists` if the key has other content; the directory then stays where it was.
        """

    @abstractmethod
    def local_directory(self, ref: ArtifactRef) -> Path:
        """Return the directory, for reading only. A cached copy of a remote store is verified.

        Raises `ArtifactCorrupt` if it is missing, or a copy that was downloaded is damaged.
        """

    @abstractmethod
    def verified_directory(self, ref: ArtifactRef) -> Path:
        """Return the directory like `local_directory`, after verifying every byte."""

    def read(self, ref: ArtifactRef, name: str) -> bytes:
        """Read and verify one small file of the directory. Raises `ArtifactCorrupt`."""
        manifest_bytes = self._read_file(f"{check_directory_key(ref.key)}/{manifest.MANIFEST_FILE}")
        if sha256(manifest_bytes).hexdigest() != ref.manifest_sha256:
            raise ArtifactCorrupt(path=ref.key, problem="manifest.json has changed")
        if name == manifest.MANIFEST_FILE:
            return manifest_bytes
        entry = json.loads(manifest_bytes)["files"].get(name)
        if entry is None:
            raise ArtifactCorrupt(path=ref.key, problem=f"there is no {name}")
        content = self._read_file(f"{ref.key}/{name}")
        if sha256(content).hexdigest() != entry["sha256"]:
            raise ArtifactCorrupt(path=ref.key, problem=f"{name} has changed")
        return content

    @abstractmethod
    def _read_file(self, name: str) -> bytes:
        """Read a file of a directory. Raises `ArtifactCorrupt` if it is missing."""

    @abstractmethod
    def move_file_into_store(self, path: Path, key: str) -> None:
        """Move the file at `path` into the store, under a new key."""

    @abstractmethod
    def verified_file(self, key: str, sha256: str) -> Path:
        """Return the path of a file, for reading only. Raises `ArtifactCorrupt` if it changed."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Delete the content of the key, if there is any."""

    @abstractmethod
    def list_files(self) -> Iterator[StoredFile]:
        """Yield every file in the store, including unfinished ones."""

    @abstractmethod
    def get_or_set_owner(self, candidate: str | None) -> str | None:
        """Return the owner of the store. If it has none, `candidate` becomes the owner, unless it
        is None."""

    @abstractmethod
    def read_clock(self) -> float:
        """Return the time on the clock of the store, by writing a probe to it."""

    def check_health(self) -> None:
        """Check that the store is writable. The result is cached for `CHECK_TTL_SECONDS`."""
        with self._lock:
            if self._checked is None or time.monotonic() - self._checked[0] > CHECK_TTL_SECONDS:
                self._checked = (time.monotonic(), self._find_problem())
            problem = self._checked[1]
        if problem is not None:
            raise type(problem)(**problem.detail)

    def forget_health_check(self) -> None:
        """Have the next `check_health` probe the store, whatever the last one found."""
        with self._lock:
            self._checked = None

    def _find_problem(self) -> AppError | None:
        try:
            self.read_clock()
        except (StorageUnavailable, StorageRefused) as error:
            return error
        except OSError as error:  # the disk is full
            return StorageUnavailable(reason=error.strerror)
        return None

    def delete_best_effort(self, key: str) -> None:
        """Delete a key without a database row. On failure, garbage collection deletes it later."""
        try:
            self.delete(key)
        except (AppError, OSError) as error:
            log.warning("files are left to garbage collection", key=key, reason=str(error))


def check_directory_key(key: str) -> str:
    """Return the key if it is one of a directory. Raises `ValueError`, as only code makes keys."""
    if not _DIRECTORY_KEY_PATTERN.fullmatch(key):
        raise ValueError(f"not a store key: {key!r}")
    return key


def check_file_key(key: str) -> str:
    """Return the key if it is one of a file. Raises `ValueError`."""
    if not _FILE_KEY_PATTERN.fullmatch(key):
        raise ValueError(f"not a store key: {key!r}")
    return key


def check_any_key(key: str) -> str:
    """Return the key if it is one of a file, a directory, or an unfinished write.

    Raises `ValueError`.
    """
    if _FILE_KEY_PATTERN.fullmatch(key) or _UNFINISHED_KEY_PATTERN.fullmatch(key):
        return key
    return check_directory_key(key)


def check_regular_files(directory: Path) -> None:
    """Raise `ArtifactCorrupt` for a link, or anything else but a file or a directory."""
    entries = [directory, *directory.rglob("*")] if os.path.lexists(directory) else []
    for entry in entries:
        if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
            raise ArtifactCorrupt(
                path=directory.name, problem=f"{entry.name} is not a regular file"
            )


def verify_and_build_ref(directory: Path, key: str) -> ArtifactRef:
    """Verify every byte of `directory`, and return its reference. Raises `ArtifactCorrupt`."""
    check_regular_files(directory)
    content = manifest.verify(directory)
    manifest_path = directory / manifest.MANIFEST_FILE
    file_bytes = sum(file["bytes"] for file in content["files"].values())
    return ArtifactRef(
        key=key,
        manifest_sha256=manifest.file_sha256(manifest_path),
        bytes=manifest_path.stat().st_size + file_bytes,
    )


def verify_directory(directory: Path, ref: ArtifactRef) -> None:
    """Raise `ArtifactCorrupt` unless `directory` matches `ref` byte for byte."""
    manifest.verify(directory)
    if manifest.file_sha256(directory / manifest.MANIFEST_FILE) != ref.manifest_sha256:
        raise ArtifactCorrupt(path=ref.key, problem="manifest.json has changed")


# -- Reading artifacts: manifest, JSON files, whole directories, tar archives ---------------------


_CHUNK_BYTES = 1 << 20  # bytes
_TAR_BLOCK_BYTES = tarfile.BLOCKSIZE


Content = Path | bytes  # of a file: where it is, or its bytes


class ArtifactWithBase:
    """A stored artifact as its readers see it: its base is part of it, wherever that is stored."""

    def __init__(self, directory: Path, base: Path | None) -> None:
        self._directory = directory
        self._base = base
        self.manifest = manifest.read(directory)
        if base is not None:
            self.manifest = artifact_base_sharing.join_manifests(self.manifest, manifest.read(base))

    def find_file(self, name: str) -> Content | None:
        """Return the manifest, or a file that it lists; None if that is not a regular file."""
        if name == manifest.MANIFEST_FILE and self._base is not None:
            return manifest.serialize(self.manifest)
        if name not in (manifest.MANIFEST_FILE, *self.manifest["files"]):
            return None
        base_prefix = f"{manifest.BASE_DIR}/"
        if self._base is not None and name.startswith(base_prefix):
            return find_regular_file(self._base, name.removeprefix(base_prefix))
        return find_regular_file(self._directory, name)


def tar_stream(
    entries: Iterable[tuple[str, Content]], *, prefix: str, modified: float
) -> Iterator[bytes]:
    """Yield a POSIX tar of files or contents by their names, under `prefix`, chunk by chunk."""
    for name, content in entries:
        header = tarfile.TarInfo(f"{prefix}/{name}")
        header.size = content.stat().st_size if isinstance(content, Path) else len(content)
        header.mtime = int(modified)
        yield header.tobuf(tarfile.PAX_FORMAT)
        with content.open("rb") if isinstance(content, Path) else BytesIO(content) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
        yield bytes(-header.size % _TAR_BLOCK_BYTES)
    yield bytes(2 * _TAR_BLOCK_BYTES)  # two empty blocks end an archive


def read_manifest(store: Store, ref: ArtifactRef, *, name: str) -> dict[str, Any]:
    """Read only the manifest, which also lists the files of the base.

    Raises `StoredArtifactCorrupt`, whose message has `name`.
    """
    with _damage_reported_as(name):
        content: dict[str, Any] = json.loads(store.read(ref, manifest.MANIFEST_FILE))
        if ref.base is None:
            return content
        return artifact_base_sharing.join_manifests(
            content, json.loads(store.read(ref.base, manifest.MANIFEST_FILE))
        )


def read_artifact_json(store: Store, ref: ArtifactRef, file: str, *, name: str) -> dict[str, Any]:
    """Read a small JSON file. Raises `StoredArtifactCorrupt`, whose message has `name`."""
    with _damage_reported_as(name):
        content: dict[str, Any] = json.loads(store.read(ref, file))
        return content


def read_artifact_json_lines(
    store: Store, ref: ArtifactRef, file: str, *, name: str, limit: int | None = None
) -> list[dict[str, Any]]:
    """Read a small JSON Lines file, or its first lines.

    Raises `StoredArtifactCorrupt`, whose message has `name`.
    """
    with _damage_reported_as(name):
        return [json.loads(line) for line in store.read(ref, file).split(b"\n")[:limit] if line]


def get_artifact_directories(store: Store, ref: ArtifactRef, *, name: str) -> ArtifactWithBase:
    """Return the artifact with its base, without verifying files of a local store.

    Raises `StoredArtifactCorrupt`.
    """
    with _damage_reported_as(name):
        return ArtifactWithBase(
            store.local_directory(ref), store.local_directory(ref.base) if ref.base else None
        )


def verify_artifact(store: Store, ref: ArtifactRef, *, name: str) -> Path:
    """Return the directory after verifying every byte, its base included.

    Raises `StoredArtifactCorrupt`.
    """
    with _damage_reported_as(name):
        if ref.base is not None:
            store.verified_directory(ref.base)
        return store.verified_directory(ref)


def verify_and_assemble_artifact(
    store: Store, ref: ArtifactRef, target: Path, *, name: str
) -> Path:
    """Put the complete artifact into a new directory after verifying every byte; return it.

    Its files stay for as long as a job reads them, whatever is deleted or evicted from a cache
    meanwhile. Raises `StoredArtifactCorrupt`.
    """
    directory = verify_artifact(store, ref, name=name)
    base = store.local_directory(ref.base) if ref.base else None
    target.mkdir(parents=True)
    artifact_base_sharing.assemble_complete_artifact(directory, base, target)
    return target


def find_regular_file(directory: Path, name: str) -> Path | None:
    """Return the path of a regular file in `directory`, or None.

    Symbolic links do not count: a training process chose the names.
    """
    path = directory / name
    inside = path.is_relative_to(directory) and path.resolve() == directory.resolve() / name
    return path if inside and path.is_file() else None


@contextmanager
def _damage_reported_as(name: str) -> Iterator[None]:
    try:
        yield
    except ArtifactCorrupt as error:
        raise StoredArtifactCorrupt(name=name, problem=error.detail["problem"]) from error
