"""Files in the store and on this host, and which of them are garbage."""

import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from uuid import UUID

from app.datasets.files import INCOMING_DIR
from app.errors import Conflict
from app.settings import Settings
from app.storage.store import StoredFile
from app.storage.verified_cache import VerifiedCache, entry_name
from lora_core.specs.data import SUFFIXES


class StoreBelongsToAnotherDatabase(Conflict):
    code = "store_belongs_to_another_database"
    title = "The store belongs to another database."
    message = (
        "The store belongs to another database ({owner}, not {name}), so nothing is deleted from "
        "it. Check LORAWORKS_DATABASE_URL and LORAWORKS_STORE_URL. Each installation needs a store "
        "of its own. Delete the file .owner in the store only if this database has the rows of the "
        "other one, such as a restored backup: files without a row are garbage."
    )


class DataKind(StrEnum):
    """Kinds of files and rows that use disk space."""

    JOB = "job"  # the rows of a job or prediction run
    SWEEP = "sweep"  # the rows of a sweep and its trials
    DELIVERY = "webhook delivery"

    MODEL = "model"
    RESULT = "result"  # of a prediction run
    VECTORS = "vector"  # of the texts of a dataset
    CHECKPOINT = "checkpoint"
    UPLOAD = "upload"
    IMPORT = "import"  # an imported model
    BASE = "base"  # of models
    UNFINISHED = "unfinished"  # left behind by a killed process
    COPY = "copy"  # cached on this host from a remote store
    OTHER = "other"  # not from loraworks: never deleted


_NO_ROW = "no database row refers to it"
ROW_KINDS = (DataKind.JOB, DataKind.SWEEP, DataKind.DELIVERY)
STORED_KINDS = (
    DataKind.MODEL,
    DataKind.RESULT,
    DataKind.VECTORS,
    DataKind.CHECKPOINT,
    DataKind.UPLOAD,
    DataKind.IMPORT,
    DataKind.BASE,
)

_ID_PATTERN = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_KEY_PATTERNS = {
    DataKind.MODEL: re.compile(rf"(jobs/({_ID_PATTERN})/a([0-9]{{1,9}}))/.+"),
    DataKind.RESULT: re.compile(rf"(predictions/({_ID_PATTERN})/a([0-9]{{1,9}}))/.+"),
    DataKind.VECTORS: re.compile(rf"(vectors/({_ID_PATTERN})/a([0-9]{{1,9}}))/.+"),
    DataKind.CHECKPOINT: re.compile(
        rf"(checkpoints/({_ID_PATTERN})/a([0-9]{{1,9}})/step-[0-9]+)/.+"
    ),
    DataKind.UPLOAD: re.compile(rf"(uploads/{_ID_PATTERN}/{_ID_PATTERN}\.[a-z0-9]{{1,16}})"),
    DataKind.IMPORT: re.compile(rf"(imports/{_ID_PATTERN})/.+"),
    # Of a job, or of an import.
    DataKind.BASE: re.compile(rf"(bases/({_ID_PATTERN})(?:/a([0-9]{{1,9}}))?)/[^/]+"),
    DataKind.UNFINISHED: re.compile(r"(\.unfinished/[0-9a-f]{32})(?:/.+)?"),
}


@dataclass(frozen=True)
class StoreEntry:
    """The files of one key, which are stored and deleted together."""

    kind: DataKind
    key: str
    bytes: int
    modified: float  # of its newest file, on the clock of the store
    attempt: tuple[UUID, int] | None = None  # the attempt that wrote it: job id, number


@dataclass(frozen=True)
class ReferencedKeys:
    """The keys to which database rows refer, and the attempts that may still add rows."""

    keys: frozenset[str]
    running_attempts: frozenset[tuple[UUID, int]]


@dataclass(frozen=True)
class Removal:
    """Something to delete, and why. The key of a job or sweep is its id."""

    kind: DataKind
    key: str
    bytes: int
    age_seconds: float
    reason: str


def group_by_key(files: Iterable[StoredFile]) -> list[StoreEntry]:
    """Group the files of the store by the key that they belong to."""
    grouped: defaultdict[tuple[DataKind, str], list[StoredFile]] = defaultdict(list)
    attempts: dict[str, tuple[UUID, int]] = {}
    for file in files:
        kind, key, attempt = _parse_name(file.name)
        grouped[kind, key].append(file)
        if attempt is not None:
            attempts[key] = attempt
    return [
        StoreEntry(
            kind,
            key,
            bytes=sum(part.bytes for part in parts),
            modified=max(part.modified for part in parts),
            attempt=attempts.get(key),
        )
        for (kind, key), parts in sorted(grouped.items())
    ]


def find_unreferenced_entries(
    stored: Iterable[StoreEntry], referenced: ReferencedKeys, *, now: float
) -> list[Removal]:
    """Return what no database row refers to. `now` is the time on the clock of the store.

    The files must be listed before the rows are read. Then a file without a row, whose attempt is
    not running, cannot get a row later, because only running attempts write rows. The exceptions
    are uploads and imports (with their bases), whose row is inserted later in the same request. So
    the caller must keep young files, which also is a second safeguard for the others.
    """
    return [
        Removal(unit.kind, unit.key, unit.bytes, now - unit.modified, _NO_ROW)
        for unit in stored
        if unit.kind is not DataKind.OTHER
        and unit.key not in referenced.keys
        and unit.attempt not in referenced.running_attempts
    ]


def _parse_name(name: str) -> tuple[DataKind, str, tuple[UUID, int] | None]:
    for kind, pattern in _KEY_PATTERNS.items():
        if match := pattern.fullmatch(name):
            key, *attempt = match.groups()
            is_of_attempt = attempt and attempt[1] is not None
            return kind, key, (UUID(attempt[0]), int(attempt[1])) if is_of_attempt else None
    return DataKind.OTHER, name, None


# -- files on this host, outside of the store ---------------------------------------------------


def find_stale_uploads_and_cache_entries(
    settings: Settings, cache: VerifiedCache, referenced: ReferencedKeys, uploads: frozenset[str]
) -> list[Removal]:
    """Find interrupted uploads, orphaned uploads of version 0.1, and cache entries without a row.

    Their key is the path relative to the data directory. Their age is measured on the clock of this
    host. The caller must keep young ones: these may be in use.
    """
    return [
        *_unfinished_uploads(settings),
        *_legacy_uploads(settings, uploads),
        *_unused_cache_entries(settings, cache, referenced),
    ]


def delete_local_leftover(settings: Settings, cache: VerifiedCache, removal: Removal) -> None:
    """Delete a file or directory, if it still exists."""
    path = settings.data_dir / removal.key
    if removal.kind is DataKind.COPY:
        cache.remove(path.name)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def directory_bytes(path: Path) -> int:
    """Return the total size of the files in a directory."""
    return sum(_size(each) for each in _walk(path))


def _unfinished_uploads(settings: Settings) -> Iterator[Removal]:
    for folder in (settings.uploads_dir / INCOMING_DIR).glob("*"):
        yield _removal(settings, DataKind.UNFINISHED, folder, "the upload was interrupted")


def _legacy_uploads(settings: Settings, uploads: frozenset[str]) -> Iterator[Removal]:
    for path in settings.uploads_dir.glob("*"):
        if path.suffix in SUFFIXES and _is_uuid(path.stem) and path.stem not in uploads:
            yield _removal(settings, DataKind.UPLOAD, path, _NO_ROW)


def _unused_cache_entries(
    settings: Settings, cache: VerifiedCache, referenced: ReferencedKeys
) -> Iterator[Removal]:
    wanted = {entry_name(key) for key in referenced.keys}
    for name in cache.names():
        if name not in wanted:
            key = (cache.root / name).relative_to(settings.data_dir).as_posix()
            yield Removal(
                DataKind.COPY,
                key,
                cache.entry_size_bytes(name),
                cache.idle_seconds(name),
                _NO_ROW,
            )


def _removal(settings: Settings, kind: DataKind, path: Path, reason: str) -> Removal:
    times = [_modified(each) for each in (path, *_walk(path))]
    key = path.relative_to(settings.data_dir).as_posix()
    size = _size(path) + directory_bytes(path)
    return Removal(kind, key, size, time.time() - max(times), reason)


def _walk(path: Path) -> Iterator[Path]:
    """Yield all paths in a directory. Unlike `rglob`, it tolerates directories that disappear."""
    for folder, folders, files in os.walk(path):
        yield from (Path(folder, name) for name in (*folders, *files))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size if path.is_file() else 0
    except FileNotFoundError:  # deleted in the meantime
        return 0


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()


def _is_uuid(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
