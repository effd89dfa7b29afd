"""A streamed tar archive to a folder that is there only when it is complete."""

import io
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.cli.errors import Misuse, Unreachable
from lora_core import manifest
from lora_core.errors import ArtifactCorrupt


class _Pieces(io.RawIOBase):
    """Chunks of bytes as a file to read from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._left) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._left += piece
        end = len(self._left) if size < 0 else size
        taken, self._left = self._left[:end], self._left[end:]
        return taken


def save(pieces: Iterator[bytes], file: Path) -> None:
    """Write the archive as it comes. Raises `Misuse`, and `Unreachable` if it is not complete."""
    if file.exists():
        raise Misuse(f"{file} is there already; give a new name with --out", "out_exists")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".loraworks-", dir=file.parent) as work:
        unfinished = Path(work, file.name)
        with unfinished.open("xb") as opened:
            opened.writelines(pieces)
        with unfinished.open("rb") as opened:
            unpack(iter(lambda: opened.read(1 << 20), b""), Path(work, "unpacked"))
        unfinished.rename(file)


def unpack(pieces: Iterator[bytes], directory: Path) -> None:
    """Unpack an artifact and check it against its manifest. Raises `Misuse`, `Unreachable`."""
    if directory.exists():
        raise Misuse(f"{directory} is there already; give a new folder with --out", "out_exists")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".loraworks-", dir=directory.parent) as unfinished:
        try:
            with tarfile.open(fileobj=_Pieces(pieces), mode="r|") as archive:
                archive.extractall(unfinished, filter="data")
            [complete] = Path(unfinished).iterdir()
            manifest.verify(complete)
        except (tarfile.TarError, ArtifactCorrupt, ValueError) as error:
            raise Unreachable(f"the download is not complete: {error}", "broken_archive") from error
        complete.rename(directory)
