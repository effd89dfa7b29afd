"""A directory as a tar stream, without holding a file in memory."""

import json
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from app.storage.errors import ArtifactDamaged
from app.storage.store import ArtifactRef, Store
from lora_core import manifest
from lora_core.errors.artifact import ArtifactCorrupt

_CHUNK = 1 << 20  # bytes
_BLOCK = tarfile.BLOCKSIZE


def tar_stream(
    directory: Path, names: Iterable[str], *, folder: str, modified: float
) -> Iterator[bytes]:
    """The named files of `directory` as a POSIX tar under `folder`, piece by piece."""
    for name in names:
        path = directory / name
        header = tarfile.TarInfo(f"{folder}/{name}")
        header.size = path.stat().st_size
        header.mtime = int(modified)
        yield header.tobuf(tarfile.PAX_FORMAT)
        with path.open("rb") as file:
            while piece := file.read(_CHUNK):
                yield piece
        yield bytes(-header.size % _BLOCK)
    yield bytes(2 * _BLOCK)  # two empty blocks end an archive


# MERGED app.storage.archive
# What a stored directory holds, and whether that is still what was put in.


def described(store: Store, ref: ArtifactRef, *, name: str) -> dict[str, Any]:
    """The manifest alone. Raises `ArtifactDamaged`, which speaks of `name`."""
    with _speaking_of(name):
        return dict(json.loads(store.read(ref, manifest.MANIFEST)))


def lines(
    store: Store, ref: ArtifactRef, file: str, *, name: str, most: int | None = None
) -> list[dict[str, Any]]:
    """The first lines of a small file of JSON. Raises `ArtifactDamaged`, which speaks of `name`."""
    with _speaking_of(name):
        return [json.loads(line) for line in store.read(ref, file).split(b"\n")[:most] if line]


def opened(store: Store, ref: ArtifactRef, *, name: str) -> tuple[Path, dict[str, Any]]:
    """Directory and manifest, unchecked where they lie. Raises `ArtifactDamaged`."""
    with _speaking_of(name):
        directory = store.path(ref)
        return directory, manifest.read(directory)


def verified(store: Store, ref: ArtifactRef, *, name: str) -> Path:
    """The directory, once every byte has been read and matches. Raises `ArtifactDamaged`."""
    with _speaking_of(name):
        return store.verified(ref)


def plain_file(directory: Path, name: str) -> Path | None:
    """A file below `directory` with no link on the way, or None. A training process wrote names."""
    path = directory / name
    inside = path.is_relative_to(directory) and path.resolve() == path
    return path if inside and path.is_file() else None


@contextmanager
def _speaking_of(name: str) -> Iterator[None]:
    try:
        yield
    except ArtifactCorrupt as error:
        raise ArtifactDamaged(name=name, problem=error.detail["problem"]) from error
