"""Downloads of files and folders, which appear only when they are complete."""

import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from app.cli.errors import ServiceUnreachable, UsageError
from lora_core import manifest
from lora_core.errors.artifact import ArtifactCorrupt


def check_new_file(file: Path) -> None:
    """Raise `UsageError` if the file cannot be created. Call this before any request."""
    if file.exists():
        raise UsageError(f"{file} already exists; choose another file with --out", "out_exists")
    if not file.parent.is_dir():
        raise UsageError(f"folder {file.parent} does not exist", "no_folder")


def write_file(chunks: Iterator[bytes], file: Path) -> None:
    """Write chunks to a temporary file, and rename it when it is complete."""
    temporary = file.with_name(f".{file.name}.unfinished")
    try:
        with temporary.open("wb") as opened:
            opened.writelines(chunks)
        temporary.rename(file)
    finally:
        temporary.unlink(missing_ok=True)


def save_archive(chunks: Iterator[bytes], file: Path) -> None:
    """Write the archive once it is artifact_dir. Raises `UsageError`, `ServiceUnreachable`."""
    if file.exists():
        raise UsageError(f"{file} already exists; choose another file with --out", "out_exists")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".loraworks-", dir=file.parent) as work:
        archive, _ = _receive(chunks, Path(work))
        archive.rename(file)


def unpack_artifact(chunks: Iterator[bytes], directory: Path) -> None:
    """Unpack an artifact and verify it. Raises `UsageError`, `ServiceUnreachable`."""
    if directory.exists():
        raise UsageError(
            f"{directory} already exists; choose another folder with --out", "out_exists"
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".loraworks-", dir=directory.parent) as work:
        _, artifact_dir = _receive(chunks, Path(work))
        artifact_dir.rename(directory)


def _receive(chunks: Iterator[bytes], work: Path) -> tuple[Path, Path]:
    """Return the received archive and its verified folder. Raises `ServiceUnreachable`."""
    archive, unpacked = work / "archive.tar", work / "unpacked"
    with archive.open("xb") as file:
        file.writelines(chunks)
    try:
        with tarfile.open(archive, "r:") as opened:
            opened.extractall(unpacked, filter="data")
        [artifact_dir] = unpacked.iterdir()
        manifest.verify(artifact_dir)
    except (tarfile.TarError, ArtifactCorrupt, ValueError) as error:
        raise ServiceUnreachable(
            f"the download is incomplete: {error}", "broken_archive"
        ) from error
    return archive, artifact_dir


def describe_model_folder(directory: Path) -> str:
    """Return a sentence about the folder of a model."""
    if manifest.is_linear(manifest.read(directory)["files"]):
        return f"Saved the model to {directory}. Run it with `python -m lora_core predict`."
    return f"Saved the model to {directory}. Its merged/ is a plain transformers checkpoint."
