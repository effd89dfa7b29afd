"""What the files of the store are, and which of them nobody will ever need again."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from app.storage.store import StoredFile


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
