"""Why nothing is removed."""

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

from app.datasets.files import INCOMING
from app.errors import Conflict
from app.settings import Settings
from app.storage.store import StoredFile
from app.storage.verified_cache import Cache, entry_name
from lora_core.specs.data import ENDINGS


class StoreOfAnother(Conflict):
    """The store belongs to another database."""

    code = "store_of_another"
    message = (
        "The store belongs to another database ({owner}, not {name}), so nothing is removed from "
        "it. Check LORAWORKS_DATABASE_URL and LORAWORKS_STORE_URL. Two installations need two "
        "stores. If this database took the place of that one, delete the file .owner in the store."
    )


# MERGED app.retention.files
# What the files of the store are, and which of them nobody will ever need again.


class Kind(StrEnum):
    """What takes room."""

    MODEL = "model"
    RESULT = "result"  # of a prediction run
    CHECKPOINT = "checkpoint"
    UPLOAD = "upload"
    IMPORT = "import"  # a model that was made elsewhere
    UNFINISHED = "unfinished"  # of a process that was killed
    COPY = "copy"  # on this machine, of what is kept elsewhere
    OTHER = "other"  # not ours: never touched


STORED = (Kind.MODEL, Kind.RESULT, Kind.CHECKPOINT, Kind.UPLOAD, Kind.IMPORT)

_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_KEYS = {
    Kind.MODEL: re.compile(rf"(jobs/({_ID})/a([0-9]{{1,9}}))/.+"),
    Kind.RESULT: re.compile(rf"(predictions/({_ID})/a([0-9]{{1,9}}))/.+"),
    Kind.CHECKPOINT: re.compile(rf"(checkpoints/({_ID})/a([0-9]{{1,9}})/step-[0-9]+)/.+"),
    Kind.UPLOAD: re.compile(rf"(uploads/{_ID}/[^/]+)"),
    Kind.IMPORT: re.compile(rf"(imports/{_ID})/.+"),
    Kind.UNFINISHED: re.compile(r"(\.unfinished/[0-9a-f]{32})(?:/.+)?"),
}


@dataclass(frozen=True)
class Unit:
    """What lies under one key and comes and goes as a whole."""

    kind: Kind
    key: str
    bytes: int
    modified: float  # of its newest file, on the clock of the store
    attempt: tuple[UUID, int] | None = None  # that wrote it


@dataclass(frozen=True)
class Known:
    """What the rows say."""

    keys: frozenset[str]
    running: frozenset[tuple[UUID, int]]  # attempts, which may still make a row


@dataclass(frozen=True)
class Removal:
    """Something that goes, and why."""

    kind: Kind
    key: str
    bytes: int
    age_seconds: float
    why: str


def units(files: Iterable[StoredFile]) -> list[Unit]:
    """The files of the store by the key that they belong to."""
    grouped: defaultdict[tuple[Kind, str], list[StoredFile]] = defaultdict(list)
    attempts: dict[str, tuple[UUID, int]] = {}
    for file in files:
        kind, key, attempt = _read(file.name)
        grouped[kind, key].append(file)
        if attempt is not None:
            attempts[key] = attempt
    return [
        Unit(
            kind,
            key,
            bytes=sum(part.bytes for part in parts),
            modified=max(part.modified for part in parts),
            attempt=attempts.get(key),
        )
        for (kind, key), parts in sorted(grouped.items())
    ]


def orphans(found: Iterable[Unit], known: Known, *, now: float) -> list[Removal]:
    """What no row knows. `now` is of the store's clock.

    `found` was listed before the rows were read: whatever has no row then, and whose attempt does
    not run, can get none any more, since only a running attempt writes rows. Except for uploads and
    imports, whose row follows within the call: so what is young must stay, which also is a second
    guard for the rest.
    """
    return [
        Removal(unit.kind, unit.key, unit.bytes, now - unit.modified, "no row knows it")
        for unit in found
        if unit.kind is not Kind.OTHER
        and unit.key not in known.keys
        and unit.attempt not in known.running
    ]


def _read(name: str) -> tuple[Kind, str, tuple[UUID, int] | None]:
    for kind, pattern in _KEYS.items():
        if match := pattern.fullmatch(name):
            key, *attempt = match.groups()
            return kind, key, (UUID(attempt[0]), int(attempt[1])) if attempt else None
    return Kind.OTHER, name, None


# MERGED app.retention.files
# What lies on this machine, outside of the store, and is of no use any more.


def find(settings: Settings, cache: Cache, known: Known, uploads: frozenset[str]) -> list[Removal]:
    """Broken uploads, uploads where version 0.1 put them, copies of what is gone.

    The key is the path below the data folder. Their age is counted on the clock of this machine,
    whose files they are.
    """
    found = [
        *_incoming(settings),
        *_first_places(settings, uploads),
        *_copies(settings, cache, known),
    ]
    return [each for each in found if each.age_seconds > settings.orphan_seconds]


def remove(settings: Settings, cache: Cache, removal: Removal) -> None:
    """Delete it; a second time does nothing."""
    path = settings.data_dir / removal.key
    if removal.kind is Kind.COPY:
        cache.forget(path.name)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def tree_bytes(path: Path) -> int:
    """What the files below a folder take."""
    return sum(_size(each) for each in _below(path))


def _incoming(settings: Settings) -> Iterator[Removal]:
    for folder in (settings.datasets_dir / INCOMING).glob("*"):
        yield _removal(settings, Kind.UNFINISHED, folder, "the upload was broken off")


def _first_places(settings: Settings, uploads: frozenset[str]) -> Iterator[Removal]:
    for path in settings.datasets_dir.glob("*"):
        if path.suffix in ENDINGS and _is_id(path.stem) and path.stem not in uploads:
            yield _removal(settings, Kind.UPLOAD, path, "no row knows it")


def _copies(settings: Settings, cache: Cache, known: Known) -> Iterator[Removal]:
    wanted = {entry_name(key) for key in known.keys}
    for name in cache.names():
        if name not in wanted:
            key = (cache.root / name).relative_to(settings.data_dir).as_posix()
            yield Removal(Kind.COPY, key, cache.bytes(name), cache.age(name), "no row knows it")


def _removal(settings: Settings, kind: Kind, path: Path, why: str) -> Removal:
    times = [_modified(each) for each in (path, *_below(path))]
    key = path.relative_to(settings.data_dir).as_posix()
    size = _size(path) + tree_bytes(path)
    return Removal(kind, key, size, time.time() - max(times), why)


def _below(path: Path) -> Iterator[Path]:
    """Whatever lies in a folder. Unlike `rglob` it bears with folders that vanish meanwhile."""
    for folder, folders, files in os.walk(path):
        yield from (Path(folder, name) for name in (*folders, *files))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size if path.is_file() else 0
    except FileNotFoundError:  # it went in the meantime
        return 0


def _modified(path: Path) -> float:
    try:
        return path.lstat().st_mtime
    except FileNotFoundError:
        return time.time()


def _is_id(name: str) -> bool:
    try:
        return str(UUID(name)) == name
    except ValueError:
        return False
