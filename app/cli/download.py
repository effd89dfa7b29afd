"""What is streamed becomes a file or a folder that is there only when it is complete."""

import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.cli.errors import Misuse, Unreachable
from lora_core import manifest
from lora_core.errors.artifact import ArtifactCorrupt


def check_new(file: Path) -> None:
    """Before anything is sent. Raises `Misuse`."""
    if file.exists():
        raise Misuse(f"{file} is there already; give a new file with --out", "out_exists")
    if not file.parent.is_dir():
        raise Misuse(f"there is no folder {file.parent}", "no_folder")


def keep(pieces: Iterator[bytes], file: Path) -> None:
    """Write the file as it comes."""
    unfinished = file.with_name(f".{file.name}.unfinished")
    try:
        with unfinished.open("wb") as opened:
            opened.writelines(pieces)
        unfinished.rename(file)
    finally:
        unfinished.unlink(missing_ok=True)


def save(pieces: Iterator[bytes], file: Path) -> None:
    """Write the archive once it is complete. Raises `Misuse`, `Unreachable`."""
    if file.exists():
        raise Misuse(f"{file} is there already; give a new name with --out", "out_exists")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".loraworks-", dir=file.parent) as work:
        archive, _ = _received(pieces, Path(work))
        archive.rename(file)


def unpack(pieces: Iterator[bytes], directory: Path) -> None:
    """Unpack an artifact and check it against its manifest. Raises `Misuse`, `Unreachable`."""
    if directory.exists():
        raise Misuse(f"{directory} is there already; give a new folder with --out", "out_exists")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".loraworks-", dir=directory.parent) as work:
        _, complete = _received(pieces, Path(work))
        complete.rename(directory)


def _received(pieces: Iterator[bytes], work: Path) -> tuple[Path, Path]:
    """The archive, and the folder that was in it. Raises `Unreachable`."""
    archive, unpacked = work / "archive.tar", work / "unpacked"
    with archive.open("xb") as file:
        file.writelines(pieces)
    try:
        with tarfile.open(archive, "r:") as opened:
            opened.extractall(unpacked, filter="data")
        [complete] = unpacked.iterdir()
        manifest.verify(complete)
    except (tarfile.TarError, ArtifactCorrupt, ValueError) as error:
        raise Unreachable(f"the download is not complete: {error}", "broken_archive") from error
    return archive, complete


def where_it_is(directory: Path) -> str:
    """A sentence about the folder of a model."""
    if manifest.is_linear(manifest.read(directory)["files"]):
        return f"The model is in {directory}; `python -m lora_core predict` answers with it."
    return f"The model is in {directory}; merged/ in it is a plain transformers checkpoint."
