"""A directory as a tar stream, without holding a file in memory."""

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

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
