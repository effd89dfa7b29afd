"""Read stored artifacts: manifest, JSON files, whole directories, tar archives."""

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
    directory: Path, names: Iterable[str], *, prefix: str, modified: float
) -> Iterator[bytes]:
    """Yield a POSIX tar of the named files of `directory`, under `prefix`, chunk by chunk."""
    for name in names:
        path = directory / name
        header = tarfile.TarInfo(f"{prefix}/{name}")
        header.size = path.stat().st_size
        header.mtime = int(modified)
        yield header.tobuf(tarfile.PAX_FORMAT)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        yield bytes(-header.size % _BLOCK)
    yield bytes(2 * _BLOCK)  # two empty blocks end an archive


def read_manifest(store: Store, ref: ArtifactRef, *, name: str) -> dict[str, Any]:
    """Read only the manifest. Raises `ArtifactDamaged`, whose message has `name`."""
    with _damage_reported_as(name):
        return dict(json.loads(store.read(ref, manifest.MANIFEST)))


def read_json_lines(
    store: Store, ref: ArtifactRef, file: str, *, name: str, limit: int | None = None
) -> list[dict[str, Any]]:
    """Read a small JSON Lines file, or its first lines.

    Raises `ArtifactDamaged`, whose message has `name`.
    """
    with _damage_reported_as(name):
        return [json.loads(line) for line in store.read(ref, file).split(b"\n")[:limit] if line]


def open_artifact(store: Store, ref: ArtifactRef, *, name: str) -> tuple[Path, dict[str, Any]]:
    """Return the directory and its manifest, without verifying files of a local store.

    Raises `ArtifactDamaged`.
    """
    with _damage_reported_as(name):
        directory = store.path(ref)
        return directory, manifest.read(directory)


def verify_artifact(store: Store, ref: ArtifactRef, *, name: str) -> Path:
    """Return the directory after verifying every byte. Raises `ArtifactDamaged`."""
    with _damage_reported_as(name):
        return store.verified_path(ref)


def regular_file(directory: Path, name: str) -> Path | None:
    """Return the path of a regular file in `directory`, or None.

    Symbolic links do not count: a training process chose the names.
    """
    path = directory / name
    inside = path.is_relative_to(directory) and path.resolve() == path
    return path if inside and path.is_file() else None


@contextmanager
def _damage_reported_as(name: str) -> Iterator[None]:
    try:
        yield
    except ArtifactCorrupt as error:
        raise ArtifactDamaged(name=name, problem=error.detail["problem"]) from error
