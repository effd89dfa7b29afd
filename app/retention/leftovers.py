"""What lies on this machine, outside of the store, and is of no use any more."""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

from app.datasets.files import INCOMING
from app.retention.removals import Kind, Known, Removal
from app.settings import Settings
from app.storage.cache import Cache, entry_name
from lora_core.specs.data import ENDINGS


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
